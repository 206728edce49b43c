"""One Trainer that learns a stream, experience after experience."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import lightning as L
from torch import Tensor, nn

from lit_meta.data.benchmark import benchmark_name
from lit_meta.evaluation.accuracy import Protocol, accuracy_of
from lit_meta.evaluation.feature_cache import KeptFeatures
from lit_meta.integrations import _fit_state, _lightning
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.networks.backbones.network import Backbone
from lit_meta.streams.checkpoints import StreamState
from lit_meta.streams.dynamic_models import DynamicModel
from lit_meta.streams.random_state import seeded
from lit_meta.streams.saving import InsideSaver
from lit_meta.streams.task_masking import TaskOutputs


def make_trainer(module: nn.Module, **options: Any) -> L.Trainer:
    """A Trainer of the module's own Lightning package, which writes and prints nothing unless its options ask for it.

    Raises:
        ValueError: Lightning refuses the options, such as an unavailable device.
    """
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with quiet():
        return _lightning.new_trainer(module, **{**silent, **options})


class StreamLearner:
    """A Trainer that fits the same module on one experience after another, and tests it in between.

    Args:
        trainer: the Trainer of the whole stream.
        module: the module that learns.
        outputs: masks the outputs of other tasks; None if the stream is not task-incremental.
        dynamic: the parts of the module that grow with the stream.
    """

    def __init__(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: TaskOutputs | None, dynamic: DynamicModel
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.outputs = outputs
        self.dynamic = dynamic
        self._check_rules_of_module()
        self._memories = [(c, _lightning.memory_of(c)) for c in _lightning.callbacks_of(trainer)]
        rules = [rule for callback in self.plasticity for rule in callback.rules]
        self._kept = KeptFeatures(module) if KeptFeatures.serves(rules) and not self.tells_tasks else None
        # What a rule will write, such as the filters of a critical period, gives no features worth keeping before.
        self._features_final = all(rule.head_only for rule in rules)

    @property
    def plasticity(self) -> list[Metaplasticity]:
        """The metaplasticity callbacks: those given to the Trainer, and those that the module configures."""
        callbacks = [*_lightning.callbacks_of(self.trainer), *self._configured()]
        return list({id(c): c for c in callbacks if isinstance(c, Metaplasticity)}.values())

    def _configured(self) -> list[Metaplasticity]:
        callbacks = self.module.configure_callbacks()
        callbacks = callbacks if isinstance(callbacks, Sequence) else [callbacks]
        return [c for c in callbacks if isinstance(c, Metaplasticity)]

    def _check_rules_of_module(self) -> None:
        """Checks that a rule that the module configures is the same in every fit, and that there is no other beside it.

        Raises:
            ValueError: the module builds a new rule for every fit, or there is another one.
        """
        for callback, again in zip(self._configured(), self._configured(), strict=True):
            if callback is not again:
                names = " and ".join(type(rule).__name__ for rule in callback.rules)
                raise ValueError(
                    f"{type(self.module).__name__}.configure_callbacks makes a new Metaplasticity ({names}) for every fit, "
                    "which would forget all previous experiences: build it once, in __init__"
                )
            callback.check_alone(_lightning.callbacks_of(self.trainer))

    def check_boundaries(self, benchmark: object) -> None:
        """Checks that no rule waits for the end of an experience in a stream whose experiences mean nothing.

        Raises:
            ValueError: one does.
        """
        if getattr(benchmark, "boundaries", True):
            return
        for rule in [rule for callback in self.plasticity for rule in callback.rules if rule.needs_boundaries]:
            raise ValueError(
                f"{type(rule).__name__} consolidates at the end of experiences, and {benchmark_name(benchmark)} has no "
                "boundaries: use a rule that needs none (lit-meta rules lists them)"
            )

    @property
    def tells_tasks(self) -> bool:
        """Whether a rule or the stream needs the task of every test sample."""
        needs_tasks = self.outputs is not None or self.dynamic.tells_tasks
        return needs_tasks or any(rule.needs_tasks for c in self.plasticity for rule in c.rules)

    def context(self, experiences: Tensor) -> AbstractContextManager[object]:
        """The contexts in which a test batch runs, for everything that needs the task of each sample."""
        stack = ExitStack()
        if self.outputs is not None:
            stack.enter_context(self.outputs.context(experiences))
        stack.enter_context(self.dynamic.testing(experiences))
        for callback in self.plasticity:
            stack.enter_context(callback.context(self.module, experiences))
        return stack

    def test(self, experiences: Sequence[tuple[Tensor, Tensor]], protocol: Protocol) -> Tensor:
        """Accuracy on each of some experiences, (experiences,), as of `lit_meta.evaluation.accuracy.accuracy_of`."""
        self.dynamic.grow_for_test()
        device = self.trainer.strategy.root_device
        network: nn.Module = self.module.to(device)
        if self._kept is not None and self._features_final:
            self._kept.begin()
            network = self._kept
        context = self.context if self.tells_tasks else None
        with seeded(0):  # A network that draws random numbers gives the same result whenever it is tested.
            return accuracy_of(network, experiences, protocol=protocol, device=device, context=context)

    def fit(
        self, data: L.LightningDataModule, *, max_epochs: int, state: StreamState, seed: int, saver: InsideSaver
    ) -> int:
        """One experience; returns the optimizer steps it took.

        Args:
            data: of the experience.
            max_epochs: maximum number of passes over it.
            state: of the stream before it, or inside of it.
            seed: of everything random in it; the global random state is restored.
            saver: saves inside of it.

        Raises:
            RuntimeError: Lightning took another number of steps than it should have.
        """
        with seeded(seed), quiet(), saver.experience(state) as path:
            if _only_backbones_evaluate(self.module):
                warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode.*")
            before = self.trainer.global_step if state.inside is None else int(state.inside["first_step"])
            return self._fit(data, max_epochs, len(state.rows), before, path)

    def load(self, state: StreamState) -> None:
        """Brings the module, its rules and the Trainer to where a checkpoint was saved.

        Of one that was saved inside an experience, the rest is restored when that experience is fitted.

        Raises:
            ValueError: the checkpoint is of another network, or of other rules.
        """
        self.dynamic.regrow(len(state.rows))
        if state.host is None or state.inside is not None:
            return
        callbacks = list({id(c): c for c in (*_lightning.callbacks_of(self.trainer), *self.plasticity)}.values())
        try:
            _fit_state.restore_finished(self.trainer, self.module, state.host, callbacks)
        except RuntimeError as error:
            raise ValueError(f"the checkpoint is of another network: {error}") from None

    def _fit(self, data: L.LightningDataModule, max_epochs: int, index: int, before: int, path: str | None) -> int:
        trainer = self.trainer
        self.dynamic.grow(index)
        # Epochs are counted within the experience, since the optimizer and its schedule are built for it, and callbacks for
        # early stopping and checkpoints act within it.
        for callback, memory in self._memories:
            _lightning.restore_memory(callback, memory)
        _lightning.restart_epochs(trainer, max_epochs)
        with (
            _lightning.interrupts_as_usual(trainer),
            nullcontext() if self.outputs is None else self.outputs.learning(index),
            self.dynamic.learning(index),
            _losses_logged_if_read(trainer, self.module),
        ):
            self._features_final = True
            trainer.fit(self.module, datamodule=_lightning.datamodule_for(self.module, data), ckpt_path=path)
        steps = trainer.global_step - before
        expected = _lightning.expected_steps(trainer, self.module, max_epochs)
        if steps == 0 or (expected not in (None, steps) and not trainer.should_stop):
            if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
                raise ValueError(
                    f"max_steps={trainer.max_steps} (which fast_dev_run sets, too) counts the steps of all experiences, and "
                    f"ended that of index {index} after {steps}: leave it out, and shorten experiences by max_epochs or "
                    "limit_train_batches"
                )
            raise RuntimeError(
                f"the Trainer took {steps} optimizer steps in an experience of {trainer.num_training_batches} batches and "
                f"{max_epochs} epochs; {'some' if expected is None else expected} were expected"
            )
        return steps


@contextmanager
def _losses_logged_if_read(trainer: L.Trainer, module: nn.Module) -> Iterator[None]:
    """Spares a `MetaplasticModule` the logging of each step's loss where no logger, progress bar or callback reads it."""
    callbacks = _lightning.callbacks_of(trainer)
    if (
        type(module) is not MetaplasticModule  # A class of one's own may read what it logged.
        or trainer.loggers
        or not all(type(callback).__module__.startswith("lit_meta.") for callback in callbacks)
    ):
        yield
        return
    module.logs_loss = False
    try:
        yield
    finally:
        module.logs_loss = True


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's messages at each of many short fits, and warnings that do not apply to streams."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The data are tensors in memory: worker processes would only slow loading down.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings(
                "ignore", message=".*You defined a `validation_step` but have no `val_dataloader`.*"
            )
            warnings.filterwarnings("ignore", message=".*passed in a `val_dataloader` but have no `validation_step`.*")
            warnings.filterwarnings(
                "ignore", message=".*number of training batches.*is smaller than the logging interval.*"
            )
            # They are not read again, see `lit_meta.integrations._fit_state`.
            warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _only_backbones_evaluate(module: nn.Module) -> bool:
    """Whether nothing is in evaluation mode but the pretrained parts of backbones, which stay in it."""
    frozen = {id(part) for b in module.modules() if isinstance(b, Backbone) for part in b.features.modules()}
    return all(part.training or id(part) in frozen for part in module.modules())

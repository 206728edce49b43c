"""One Trainer that learns a stream, experience after experience."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_meta.evaluation.accuracy import Protocol, accuracy_of
from lit_meta.evaluation.feature_cache import KeptFeatures
from lit_meta.integrations import _lightning
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.streams.checkpoints import Saved
from lit_meta.streams.dynamic_models import DynamicModel
from lit_meta.streams.task_masking import TaskOutputs


def make_trainer(module: nn.Module, **options: Any) -> L.Trainer:
    """A Trainer of the package that the module is of, which writes and prints nothing unless its options say otherwise.

    Raises:
        ValueError: Lightning refuses the options, such as a device that is not there.
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
    """A Trainer that fits the same module again and again, and what is tested in between.

    Args:
        trainer: of the whole stream.
        module: learns.
        outputs: opens the outputs of a sample's task alone; None where tasks are not told.
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

    @property
    def plasticity(self) -> list[Metaplasticity]:
        """The metaplasticity callbacks: those given to the Trainer, and those that the module brings along."""
        callbacks = [*_lightning.callbacks_of(self.trainer), *self._brought()]
        return list({id(c): c for c in callbacks if isinstance(c, Metaplasticity)}.values())

    def _brought(self) -> list[Metaplasticity]:
        brought = self.module.configure_callbacks()
        return [c for c in (brought if isinstance(brought, Sequence) else [brought]) if isinstance(c, Metaplasticity)]

    def _check_rules_of_module(self) -> None:
        """Checks that a rule that the module brings along is the same in every fit, and that no other stands beside it.

        Raises:
            ValueError: it is not.
        """
        for callback, again in zip(self._brought(), self._brought(), strict=True):
            if callback is not again:
                names = " and ".join(type(rule).__name__ for rule in callback.rules)
                raise ValueError(
                    f"{type(self.module).__name__}.configure_callbacks makes a new Metaplasticity ({names}) for every fit, "
                    "which would forget all experiences before: make it once, in __init__"
                )
            callback.check_alone(_lightning.callbacks_of(self.trainer))

    @property
    def tells_tasks(self) -> bool:
        """Whether a rule or the stream needs the task of every test sample."""
        told = self.outputs is not None or self.dynamic.tells_tasks
        return told or any(rule.needs_tasks for c in self.plasticity for rule in c.rules)

    def context(self, experiences: Tensor) -> AbstractContextManager[object]:
        """Tells whatever needs tasks what each sample of a test batch is of."""
        stack = ExitStack()
        if self.outputs is not None:
            stack.enter_context(self.outputs.context(experiences))
        stack.enter_context(self.dynamic.testing(experiences))
        for callback in self.plasticity:
            stack.enter_context(callback.context(self.module, experiences))
        return stack

    @property
    def epochs(self) -> int:
        """Passes that the last experience took; fewer than its ``max_epochs`` where a callback stopped it."""
        return _lightning.completed_epochs(self.trainer)

    def test(self, experiences: Sequence[tuple[Tensor, Tensor]], protocol: Protocol) -> Tensor:
        """Accuracy on each of some experiences, (experiences,), as of `lit_meta.evaluation.accuracy.accuracy_of`."""
        self.dynamic.grow_for_test()
        device = self.trainer.strategy.root_device
        network: nn.Module = self.module.to(device)
        if self._kept is not None:
            self._kept.begin()
            network = self._kept
        context = self.context if self.tells_tasks else None
        return accuracy_of(network, experiences, protocol=protocol, device=device, context=context)

    def fit(self, data: L.LightningDataModule, *, max_epochs: int, index: int, seed: int) -> int:
        """One experience; returns the optimizer steps it took.

        Args:
            data: of the experience.
            max_epochs: passes over it at most.
            index: its position in the stream.
            seed: of all that is random in it; the global random state is left as it was.

        Raises:
            RuntimeError: Lightning took another number of steps than it should have.
        """
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(seed)
            return self._fit(data, max_epochs, index)

    def rule_states(self) -> list[dict[str, Any]]:
        """The memory of all rules, by callback."""
        return [callback.state_dict() for callback in self.plasticity]

    def load(self, saved: Saved) -> None:
        """Takes up the weights and the rules' memory of a checkpoint.

        Raises:
            ValueError: it is of another network, or of other rules.
        """
        self.dynamic.regrow(len(saved.rows))
        try:
            self.module.load_state_dict(saved.module)
        except RuntimeError as error:
            raise ValueError(f"{saved.path} is a checkpoint of another network: {error}") from None
        callbacks = self.plasticity
        if len(callbacks) != len(saved.rules):
            raise ValueError(f"the checkpoint holds {len(saved.rules)} rule callbacks, the module has {len(callbacks)}")
        for callback, state in zip(callbacks, saved.rules, strict=True):
            callback.load_state_dict(state)

    def _fit(self, data: L.LightningDataModule, max_epochs: int, index: int) -> int:
        trainer = self.trainer
        before = trainer.global_step
        self.dynamic.grow(index)
        # Epochs are counted in the experience, as the optimizer and its schedule are made for it, and callbacks that stop early
        # or keep the best do so within it.
        for callback, memory in self._memories:
            _lightning.restore_memory(callback, memory)
        _lightning.restart_epochs(trainer, max_epochs)
        with (
            _lightning.interrupts_as_usual(trainer),
            nullcontext() if self.outputs is None else self.outputs.learning(index),
            self.dynamic.learning(index),
        ):
            trainer.fit(self.module, datamodule=_lightning.datamodule_for(self.module, data))
        steps = trainer.global_step - before
        expected = _lightning.expected_steps(trainer, self.module, max_epochs)
        if steps == 0 or (expected not in (None, steps) and not trainer.should_stop):
            raise RuntimeError(
                f"the Trainer took {steps} optimizer steps in an experience of {trainer.num_training_batches} batches and "
                f"{max_epochs} epochs; {'some' if expected is None else expected} were expected"
            )
        return steps


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says at each of many short fits, and what the stream runner knows better."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Data are tensors in memory: worker processes would only slow them down.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings(
                "ignore", message=".*You defined a `validation_step` but have no `val_dataloader`.*"
            )
            warnings.filterwarnings("ignore", message=".*passed in a `val_dataloader` but have no `validation_step`.*")
            warnings.filterwarnings(
                "ignore", message=".*number of training batches.*is smaller than the logging interval.*"
            )
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

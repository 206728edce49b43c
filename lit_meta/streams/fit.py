"""One Trainer over a stream of experiences."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_meta.callbacks.continual_evaluation import ContinualEvaluation
from lit_meta.cost.ledger import CostLedger
from lit_meta.evaluation.accuracy import Protocol, accuracy_of
from lit_meta.evaluation.feature_cache import KeptFeatures
from lit_meta.functional import matrix
from lit_meta.integrations import _lightning
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.streams.checkpoints import Checkpoints
from lit_meta.streams.task_masking import TaskOutputs
from lit_meta.utils.io import check_folder


@dataclass
class StreamResult:
    """What came of a stream.

    Attributes:
        scenario: the benchmark's name.
        protocol: how the test batches were made; see `lit_meta.evaluation.accuracy.accuracy_of`.
        accuracy_matrix: (training experiences, test experiences), R[i, j] = accuracy on j after learning i.
        initial: (test experiences,), accuracy before any learning.
        cost: optimizer steps, samples seen, seconds of training, bytes of parameters and of the rules' memory; with a
            `CostLedger` among the callbacks, also what it counted over the whole stream.
        classes: the labels in each test experience, where the benchmark tells; empty where it does not.
    """

    scenario: str
    protocol: str
    accuracy_matrix: Tensor
    initial: Tensor
    cost: dict[str, float] = field(default_factory=dict)
    classes: list[list[int]] = field(default_factory=list)

    @property
    def average_accuracy(self) -> float:
        """Mean accuracy over the test experiences after the last experience."""
        return float(self.accuracy_matrix[-1].mean())

    @property
    def forgetting(self) -> float | None:
        """Mean loss of accuracy since an experience was learned; None for a stream of one experience."""
        return float(matrix.forgetting(self.accuracy_matrix)) if self._is_stream else None

    @property
    def backward_transfer(self) -> float | None:
        """Minus the forgetting, by Avalanche's definition; None for a stream of one experience."""
        return float(matrix.backward_transfer(self.accuracy_matrix)) if self._is_stream else None

    @property
    def forward_transfer(self) -> float | None:
        """Mean gain of accuracy on experiences still to come; None for a stream of one experience."""
        return float(matrix.forward_transfer(self.accuracy_matrix, self.initial)) if self._is_stream else None

    @property
    def _is_stream(self) -> bool:
        rows, columns = self.accuracy_matrix.shape
        return rows == columns and rows > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return {
            "scenario": self.scenario,
            "protocol": self.protocol,
            "average_accuracy": self.average_accuracy,
            "forgetting": self.forgetting,
            "backward_transfer": self.backward_transfer,
            "forward_transfer": self.forward_transfer,
            "accuracy_matrix": [[round(v, 6) for v in row] for row in self.accuracy_matrix.tolist()],
            "initial": [round(v, 6) for v in self.initial.tolist()],
            "cost": self.cost,
            "classes": self.classes,
        }


def fit_stream(
    module: L.LightningModule,
    benchmark: Any,
    *,
    max_epochs: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    protocol: Protocol = "standard",
    accelerator: str = "auto",
    callbacks: Sequence[L.Callback] = (),
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_experience: Callable[[int, Tensor], None] | None = None,
    **trainer_options: Any,
) -> StreamResult:
    """Trains a LightningModule on each experience of a benchmark in turn, and tests it on all of them after each.

    One Trainer serves the whole stream; optimizers start afresh with every experience. The order of the samples depends
    on ``seed`` alone, and the global random state is left as it was.

    Args:
        module: a `MetaplasticModule`, or any LightningModule with the callback `Metaplasticity` among ``callbacks``;
            calling it with inputs (batch, ...) must give outputs (batch, classes).
        benchmark: an Avalanche benchmark, such as `lit_meta.scenario` makes. One whose ``form`` is ``"task"`` tells the task
            of every sample: only the outputs of its classes are open, see `lit_meta.streams.task_masking`.
        max_epochs: passes over each experience's data.
        batch_size: samples in a training step.
        seed: of the order of samples, and of anything random in the network's training.
        protocol: how test batches are made.
        accelerator: Lightning's name of the device.
        callbacks: given to the Trainer.
        run_dir: keeps a checkpoint of the network and the rules' memory after every experience; None keeps none.
        resume: go on after the last checkpoint in ``run_dir``; from the start where there is none.
        on_experience: called after each experience with its index and its row of the accuracy matrix.
        **trainer_options: anything else that `lightning.Trainer` takes.

    Returns:
        The result over the whole stream.

    Raises:
        ValueError: bad arguments, an empty experience, labels outside the head, or a checkpoint of another stream.
        RuntimeError: Lightning took another number of steps than it should have.

    Example:
        >>> from lit_meta import MetaplasticModule, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> fit_stream(module, scenario("split-digits", experiences=2), accelerator="cpu").accuracy_matrix.shape
        torch.Size([2, 2])
    """
    from lit_meta.data import ExperienceDataModule, experience_tensors

    if not isinstance(module, L.LightningModule):
        hint = "; wrap it, MetaplasticModule(network)" if isinstance(module, nn.Module) else ""
        raise TypeError(f"a module to train is a LightningModule, got {type(module).__name__}{hint}")
    if not hasattr(benchmark, "train_stream") or not hasattr(benchmark, "test_stream"):
        raise TypeError(
            f"a benchmark has a train_stream and a test_stream, as lit_meta.scenario makes it, got {type(benchmark).__name__}"
        )
    if max_epochs < 1:
        raise ValueError(f"max_epochs must be at least 1, got {max_epochs}")
    if run_dir is not None:
        check_folder(Path(run_dir))
    if resume and run_dir is None:
        raise ValueError("resume=True needs the run_dir of the run to go on with")
    train, test = list(benchmark.train_stream), [experience_tensors(e) for e in benchmark.test_stream]
    if not train:
        raise ValueError("the benchmark's train_stream is empty")
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with _quiet():
        try:
            trainer = L.Trainer(
                accelerator=accelerator,
                max_epochs=max_epochs,
                callbacks=list(callbacks),
                **{**options, **trainer_options},
            )
        except MisconfigurationException as error:  # Such as a device that is not there.
            raise ValueError(f"Lightning's Trainer refuses its arguments: {error}") from None
    learner = _Learner(trainer, module, _task_outputs(module, benchmark))
    device = trainer.strategy.root_device
    told = learner.tells_tasks
    if told and any(isinstance(callback, ContinualEvaluation) for callback in callbacks):
        raise ValueError("ContinualEvaluation cannot tell the task of a test sample, and this stream has to")

    serves = KeptFeatures.serves(rule for callback in learner.plasticity for rule in callback.rules)
    kept = KeptFeatures(module) if serves and not told else None

    def test_accuracy() -> Tensor:
        network: nn.Module = module.to(device)
        if kept is not None:
            kept.begin()
            network = kept
        return accuracy_of(network, test, protocol=protocol, device=device, context=learner.context if told else None)

    checkpoints = None if run_dir is None else Checkpoints(Path(run_dir))
    rows: list[Tensor] = []
    cost: dict[str, float] = {"steps": 0, "samples": 0, "seconds": 0.0}
    saved = checkpoints.latest() if checkpoints is not None and resume else None
    if saved is None:
        initial = test_accuracy()
    else:
        saved.check(scenario=_name(benchmark), train=len(train), test=len(test), seed=seed)
        learner.load(saved)
        rows, initial, cost = list(saved.rows), saved.initial, saved.cost
    for index in range(len(rows), len(train)):
        data = ExperienceDataModule(train[index], benchmark.test_stream, batch_size=batch_size, seed=seed)
        started = time.perf_counter()
        with torch.random.fork_rng(), _quiet():
            torch.manual_seed(seed + index)
            steps = learner.fit(data, max_epochs, index)
        cost["seconds"] += time.perf_counter() - started
        cost["steps"] += steps
        cost["samples"] += learner.epochs * len(train[index].dataset)
        for ledger in callbacks:
            if isinstance(ledger, CostLedger):
                ledger.experiences[-1].add_to(cost)
        rows.append(test_accuracy())
        if checkpoints is not None:
            checkpoints.save(
                index,
                module=module,
                rules=learner.rule_states(),
                rows=rows,
                initial=initial,
                cost=cost,
                scenario=_name(benchmark),
                train=len(train),
                seed=seed,
            )
        if on_experience is not None:
            on_experience(index, rows[-1])
    cost["parameter_bytes"] = sum(p.numel() * p.element_size() for p in module.parameters())
    # Of the states, not of the rules: those of a run that was complete already have not been attached to a network.
    states = learner.rule_states() if saved is None or len(saved.rows) < len(train) else saved.rules
    tensors = [t for state in states for rule in state.get("rules", []) for t in rule["state"].values()]
    cost["state_bytes"] = sum(t.numel() * t.element_size() for t in tensors)
    classes = _classes(benchmark.test_stream)
    return StreamResult(_name(benchmark), protocol, torch.stack(rows), initial, cost, classes)


class _Learner:
    """A Trainer that fits the same module again and again."""

    def __init__(self, trainer: L.Trainer, module: L.LightningModule, outputs: TaskOutputs | None) -> None:
        self.trainer = trainer
        self.module = module
        self.outputs = outputs
        self._saved: list[dict[str, Any]] = []

    @property
    def plasticity(self) -> list[Metaplasticity]:
        """The metaplasticity callbacks: those given to the Trainer, and those that the module brings along."""
        brought = self.module.configure_callbacks()
        found = [*_lightning.callbacks_of(self.trainer), *(brought if isinstance(brought, Sequence) else [brought])]
        return list({id(c): c for c in found if isinstance(c, Metaplasticity)}.values())

    @property
    def tells_tasks(self) -> bool:
        """Whether a rule or the stream needs the task of every test sample."""
        return self.outputs is not None or any(rule.needs_tasks for c in self.plasticity for rule in c.rules)

    def context(self, experiences: Tensor) -> AbstractContextManager[object]:
        """Tells whatever needs tasks what each sample of a test batch is of."""
        stack = ExitStack()
        if self.outputs is not None:
            stack.enter_context(self.outputs.context(experiences))
        for callback in self.plasticity:
            stack.enter_context(callback.context(self.module, experiences))
        return stack

    @property
    def epochs(self) -> int:
        """Passes that the last experience took; fewer than its ``max_epochs`` where a callback stopped it."""
        return _lightning.completed_epochs(self.trainer)

    def fit(self, data: L.LightningDataModule, max_epochs: int, index: int) -> int:
        """One experience; returns the optimizer steps it took."""
        trainer = self.trainer
        before = trainer.global_step
        # Epochs are counted in the experience, as the optimizer and its schedule are made for it.
        _lightning.restart_epochs(trainer, max_epochs)
        with (
            _lightning.interrupts_as_usual(trainer),
            nullcontext() if self.outputs is None else self.outputs.learning(index),
        ):
            trainer.fit(self.module, datamodule=data)
        steps = trainer.global_step - before
        batches = int(trainer.num_training_batches)
        expected = max_epochs * math.ceil(batches / trainer.accumulate_grad_batches) * len(trainer.optimizers)
        if steps != expected and not trainer.should_stop:
            raise RuntimeError(
                f"the Trainer took {steps} optimizer steps in an experience of {batches} batches and {max_epochs} epochs; "
                f"{expected} were expected"
            )
        return steps

    def rule_states(self) -> list[dict[str, Any]]:
        return [callback.state_dict() for callback in self.plasticity]

    def load(self, saved: Any) -> None:
        try:
            self.module.load_state_dict(saved.module)
        except RuntimeError as error:
            raise ValueError(f"{saved.path} is a checkpoint of another network: {error}") from None
        callbacks = self.plasticity
        if len(callbacks) != len(saved.rules):
            raise ValueError(f"the checkpoint holds {len(saved.rules)} rule callbacks, the module has {len(callbacks)}")
        for callback, state in zip(callbacks, saved.rules, strict=True):
            callback.load_state_dict(state)


def _name(benchmark: Any) -> str:
    return str(getattr(benchmark, "name", None) or type(benchmark).__name__)


def _task_outputs(module: L.LightningModule, benchmark: Any) -> TaskOutputs | None:
    if getattr(benchmark, "form", "") != "task":
        return None
    train, test = _classes(benchmark.train_stream), _classes(benchmark.test_stream)
    return TaskOutputs(module, train=train, test=test, classes=benchmark.classes)


def _classes(stream: Iterable[Any]) -> list[list[int]]:
    """Labels of each experience; Avalanche attaches them by `with_classes_timeline`."""
    experiences = list(stream)
    if not all(hasattr(experience, "classes_in_this_experience") for experience in experiences):
        return []
    return [sorted(int(label) for label in experience.classes_in_this_experience) for experience in experiences]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Lightning says at each of many short fits, and what the stream runner knows better."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Data are tensors in memory: worker processes would only slow them down.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings(
                "ignore", message=".*You defined a `validation_step` but have no `val_dataloader`.*"
            )
            warnings.filterwarnings(
                "ignore", message=".*number of training batches.*is smaller than the logging interval.*"
            )
            yield
    finally:
        logger.setLevel(level)

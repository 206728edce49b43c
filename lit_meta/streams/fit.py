"""One Trainer over a stream of experiences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_meta.data.benchmark import Benchmark, benchmark_name, stream_classes
from lit_meta.data.module import ExperienceDataModule, experience_tensors
from lit_meta.evaluation.accuracy import Protocol
from lit_meta.integrations import _lightning
from lit_meta.streams.checkpoints import Checkpoints, StreamIdentity
from lit_meta.streams.cost import StreamCost
from lit_meta.streams.dynamic_models import DynamicModel
from lit_meta.streams.learner import StreamLearner, make_trainer
from lit_meta.streams.logging import log_accuracies
from lit_meta.streams.observer import StreamObservers
from lit_meta.streams.result import StreamResult
from lit_meta.streams.sample_count import SampleCount
from lit_meta.streams.task_masking import task_outputs
from lit_meta.utils.io import check_folder

__all__ = ["StreamResult", "fit_stream"]


def fit_stream(
    module: L.LightningModule,
    benchmark: Benchmark,
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

    One Trainer serves the whole stream; every experience starts with a new optimizer. The order of the samples depends on
    ``seed`` alone, and the global random state is restored.

    Args:
        module: a `MetaplasticModule`, or any LightningModule (also of the package ``pytorch_lightning``) with the callback
            `Metaplasticity` among ``callbacks``; calling it with inputs (batch, ...) must give outputs (batch, classes).
            Avalanche's dynamic modules in it grow with the stream, and its multi-task modules receive the task.
        benchmark: an Avalanche benchmark, such as `lit_meta.scenario` builds, or anything else that is a
            `lit_meta.data.benchmark.Benchmark`. One whose ``form`` is ``"task"`` provides the task of every sample: all
            outputs but those of the task's classes are masked, see `lit_meta.streams.task_masking`.
        max_epochs: passes over each experience's data.
        batch_size: samples in a training step.
        seed: of the order of samples, and of anything random in the network's training.
        protocol: how test batches are composed.
        accelerator: Lightning's name of the device.
        callbacks: given to the Trainer. They may also take part in the stream, see `lit_meta.streams.observer`.
        run_dir: the folder for a checkpoint of the network and the rules' memory after every experience; None saves none.
        resume: continue after the last checkpoint in ``run_dir``, or from the start if there is none.
        on_experience: called after each experience with its index and its row of the accuracy matrix.
        **trainer_options: anything else that `lightning.Trainer` takes. Its ``logger`` is also told the accuracies after every
            experience (``stream/accuracy``, ``stream/accuracy_seen``, ``stream/accuracy_experience_1``, ...), and
            ``enable_progress_bar=True`` or a progress bar among ``callbacks`` shows each experience as it is learned.

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
    train, test = _experiences(module, benchmark)
    if max_epochs < 1:
        raise ValueError(f"max_epochs must be at least 1, got {max_epochs}")
    if run_dir is not None:
        check_folder(Path(run_dir))
    if resume and run_dir is None:
        raise ValueError("resume=True needs the run_dir of the run to resume")
    observers = StreamObservers(callbacks)
    seen = SampleCount()
    trainer = make_trainer(
        module, accelerator=accelerator, max_epochs=max_epochs, callbacks=[*callbacks, seen], **trainer_options
    )
    dynamic = DynamicModel(module, train=train, test=list(benchmark.test_stream), seed=seed)
    learner = StreamLearner(trainer, module, task_outputs(module, benchmark), dynamic)
    learner.check_boundaries(benchmark)
    observers.check(tells_tasks=learner.tells_tasks)
    stream = StreamIdentity(
        benchmark_name(benchmark), len(train), len(test), seed, stream_classes(benchmark.train_stream)
    )
    checkpoints = None if run_dir is None else Checkpoints(Path(run_dir))
    saved = checkpoints.latest() if checkpoints is not None and resume else None
    if saved is None:
        rows, initial, cost = [], learner.test(test, protocol), StreamCost()
    else:
        saved.check(stream)
        learner.load(saved)
        rows, initial, cost = list(saved.rows), saved.initial, saved.cost
        _check_counted(cost, observers, len(rows), len(train))
    for index in range(len(rows), len(train)):
        data = ExperienceDataModule(train[index], benchmark.test_stream, batch_size=batch_size, seed=seed)
        started = time.perf_counter()
        steps = learner.fit(data, max_epochs=max_epochs, index=index, seed=seed + index)
        cost.add(
            steps=steps,
            samples=seen.take(),
            seconds=time.perf_counter() - started,
            counted=observers.experience_cost(),
        )
        rows.append(learner.test(test, protocol))
        log_accuracies(trainer, rows[-1], len(rows))
        if checkpoints is not None:
            checkpoints.save(
                module=module, rules=learner.rule_states(), rows=rows, initial=initial, cost=cost, stream=stream
            )
        if on_experience is not None:
            on_experience(index, rows[-1])
    cost.parameter_bytes = sum(p.numel() * p.element_size() for p in module.parameters())
    # From the states, not the rules: in a run that was already complete, these have not been attached to a network.
    states = learner.rule_states() if saved is None or len(saved.rows) < len(train) else saved.rules
    cost.state_bytes = sum(
        t.nbytes for state in states for rule in state.get("rules", []) for t in rule["state"].values()
    )
    return StreamResult(
        stream.scenario, protocol, torch.stack(rows), initial, cost, stream_classes(benchmark.test_stream)
    )


def _experiences(module: object, benchmark: object) -> tuple[list[Any], list[tuple[Tensor, Tensor]]]:
    """The training experiences, and the samples and labels of the test experiences."""
    if not _lightning.is_lightning_module(module):
        hint = "; wrap it as MetaplasticModule(network)" if isinstance(module, nn.Module) else ""
        raise TypeError(f"a module to train is a LightningModule, got {type(module).__name__}{hint}")
    if not isinstance(benchmark, Benchmark):
        raise TypeError(
            f"a benchmark has a train_stream and a test_stream, see lit_meta.scenario, got {type(benchmark).__name__}"
        )
    train, test = list(benchmark.train_stream), [experience_tensors(e) for e in benchmark.test_stream]
    if not train:
        raise ValueError("the benchmark's train_stream is empty")
    return train, test


def _check_counted(cost: StreamCost, observers: StreamObservers, learned: int, length: int) -> None:
    """Checks that a resumed stream counts its cost over all of its experiences."""
    if learned < length and (cost.counted is not None) != observers.counts_cost:
        before, now = ("without", "with") if observers.counts_cost else ("with", "without")
        raise ValueError(
            f"the first {learned} experiences were learned {before} a callback that counts the cost (CostLedger), and the "
            f"rest would be {now} one: resume with the callbacks that the run started with"
        )

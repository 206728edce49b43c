"""One Trainer over a stream of experiences."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_meta.callbacks.continual_evaluation import ContinualEvaluation
from lit_meta.data.benchmark import Benchmark, benchmark_name, stream_classes
from lit_meta.data.module import ExperienceDataModule, experience_tensors
from lit_meta.evaluation.accuracy import Protocol
from lit_meta.integrations import _fit_state, _lightning
from lit_meta.streams.checkpoints import Checkpoints, StreamState
from lit_meta.streams.dynamic_models import DynamicModel
from lit_meta.streams.identity import stream_identity
from lit_meta.streams.interrupts import Interrupts, Stop
from lit_meta.streams.learner import StreamLearner, make_trainer
from lit_meta.streams.logging import log_accuracies
from lit_meta.streams.observer import StreamObservers
from lit_meta.streams.result import StreamResult
from lit_meta.streams.sample_count import SampleCount
from lit_meta.streams.saving import InsideSaver
from lit_meta.streams.task_masking import task_outputs
from lit_meta.utils.arguments import nearest, require_count
from lit_meta.utils.io import check_folder
from lit_meta.utils.locks import owned_folder
from lit_meta.utils.progress import line_by_line

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
    overwrite: bool = False,
    checkpoint_minutes: float = 2.0,
    checkpoint_steps: int | None = None,
    evaluate_every: int | None = None,
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
        run_dir: the run's folder, for a checkpoint after every experience and now and then inside of one; None saves none.
            One process owns it while the stream runs. It holds one run: the same module, data, rule and settings.
        resume: continue from the last checkpoint in ``run_dir``, to the same bits as without the interruption, or from the
            start if there is none.
        overwrite: start afresh in a ``run_dir`` that holds checkpoints, which are removed.
        checkpoint_minutes: between two checkpoints inside an experience; more where saving takes long, so that it never takes
            more than 3 % of the time.
        checkpoint_steps: save after this many optimizer steps too; None for minutes alone.
        evaluate_every: also test on all experiences every so many optimizer steps of an experience, into the result's ``trace``
            and, with ``run_dir``, ``continual_evaluation.json``; see `lit_meta.callbacks.ContinualEvaluation`.
        on_experience: called after each experience with its index and its row of the accuracy matrix.
        **trainer_options: anything else that `lightning.Trainer` takes. Its ``logger`` is also told the accuracies after every
            experience (``stream/accuracy``, ``stream/accuracy_seen``, ``stream/accuracy_experience_1``, ...), and
            ``enable_progress_bar=True`` or a progress bar among ``callbacks`` shows each experience as it is learned.

    Returns:
        The result over the whole stream.

    Raises:
        TypeError: an argument that neither `fit_stream` nor the Trainer has; the nearest is named.
        ValueError: bad arguments, an empty experience, labels outside the head, or a run_dir of another run or with damaged
            checkpoints only.
        FileExistsError: ``run_dir`` holds a run, and neither ``resume`` nor ``overwrite`` is set.
        RuntimeError: another process owns ``run_dir``, or Lightning took another number of steps than it should have.
        OSError: a checkpoint cannot be written; the former one is intact.
        StreamInterrupted, StreamTerminated: a `KeyboardInterrupt` on SIGINT and a `SystemExit` on SIGTERM and SIGHUP, once
            the present step is finished and saved.

    Example:
        >>> from lit_meta import MetaplasticModule, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> fit_stream(module, scenario("split-digits", experiences=2), accelerator="cpu").accuracy_matrix.shape
        torch.Size([2, 2])
    """
    _check_options(trainer_options)
    train, test = _experiences(module, benchmark)
    require_count("max_epochs", max_epochs)
    if run_dir is not None:
        check_folder(Path(run_dir))
    _check_resuming(run_dir, resume, overwrite, checkpoint_minutes, checkpoint_steps)
    within = _evaluation_within(evaluate_every, benchmark, protocol, run_dir, callbacks)
    callbacks = [*callbacks, within] if within is not None else callbacks
    observers = StreamObservers(callbacks)
    seen = SampleCount()
    trainer = make_trainer(
        module, accelerator=accelerator, max_epochs=max_epochs, callbacks=[*callbacks, seen], **trainer_options
    )
    dynamic = DynamicModel(module, train=train, test=list(benchmark.test_stream), seed=seed)
    learner = StreamLearner(trainer, module, task_outputs(module, benchmark), dynamic)
    learner.check_boundaries(benchmark)
    observers.check(tells_tasks=learner.tells_tasks)
    interrupts = Interrupts(waits=run_dir is not None)
    with ExitStack() as stack:
        checkpoints, saved = None, None
        if run_dir is not None:
            identity = stream_identity(
                module,
                benchmark,
                test=test,
                callbacks=callbacks,
                plasticity=learner.plasticity,
                settings={"seed": seed, "max_epochs": max_epochs, "batch_size": batch_size, "protocol": protocol},
                trainer_options=trainer_options,
            )
            if trainer.is_global_zero:
                stack.enter_context(owned_folder(Path(run_dir)))
            checkpoints = Checkpoints(Path(run_dir), identity, writes=trainer.is_global_zero)
            stack.enter_context(checkpoints.written())
            saved = checkpoints.begin(resume=resume, overwrite=overwrite)
        stack.enter_context(interrupts.noted())
        if saved is None:
            state = StreamState(initial=learner.test(test, protocol))
        else:
            learner.load(saved)
            state = saved
        saver = InsideSaver(
            trainer, module, checkpoints, interrupts, minutes=checkpoint_minutes, steps=checkpoint_steps
        )
        say = _speaker(trainer, len(train) - len(state.rows), trainer_options)
        for index in range(len(state.rows), len(train)):
            _end_if_asked(interrupts, state, run_dir, checkpoints)
            data = ExperienceDataModule(train[index], benchmark.test_stream, batch_size=batch_size, seed=seed)
            earlier, started = float((state.inside or {}).get("seconds", 0.0)), time.perf_counter()
            try:
                steps = learner.fit(data, max_epochs=max_epochs, state=state, seed=seed + index, saver=saver)
            except Stop:
                _end_if_asked(interrupts, saver.reached, run_dir if saver.saved else None, checkpoints)
                raise
            state.cost.add(
                steps=steps,
                samples=seen.take(),
                seconds=earlier + time.perf_counter() - started,
                counted=observers.experience_cost(),
            )
            state.rows.append(learner.test(test, protocol))
            log_accuracies(trainer, state.rows[-1], len(state.rows))
            state = StreamState(initial=state.initial, rows=state.rows, cost=state.cost)
            if checkpoints is not None:
                state.host = _fit_state.dumped(trainer, between=True)
                checkpoints.save(state)
                state.host = None
            if say is not None:
                accuracy = 100 * float(state.rows[-1][: index + 1].mean())
                say(f"experience {index + 1}: {accuracy:.1f} % on what was learned")
            if on_experience is not None:
                on_experience(index, state.rows[-1])
        _end_if_asked(interrupts, state, run_dir, checkpoints)
    cost = state.cost
    cost.parameter_bytes = sum(p.numel() * p.element_size() for p in module.parameters())
    cost.state_bytes = sum(rule.state.bytes for callback in learner.plasticity for rule in callback.rules)
    return StreamResult(
        benchmark_name(benchmark),
        protocol,
        torch.stack(state.rows),
        state.initial,
        cost,
        stream_classes(benchmark.test_stream),
        None if within is None else within.trace,
    )


def _evaluation_within(
    steps: int | None,
    benchmark: Benchmark,
    protocol: Protocol,
    run_dir: str | Path | None,
    callbacks: Sequence[L.Callback],
) -> ContinualEvaluation | None:
    """The callback that tests every ``steps`` steps, unless that is None."""
    if steps is None:
        return None
    require_count("evaluate_every", steps)
    if any(isinstance(callback, ContinualEvaluation) for callback in callbacks):
        raise ValueError(
            "evaluate_every tests within experiences, as the ContinualEvaluation among callbacks: give one of them"
        )
    return ContinualEvaluation(benchmark.test_stream, every_n_steps=steps, protocol=protocol, folder=run_dir)


def _check_resuming(
    run_dir: str | Path | None, resume: bool, overwrite: bool, minutes: float, steps: int | None
) -> None:
    for name, given in (("resume", resume), ("overwrite", overwrite)):
        if given and run_dir is None:
            raise ValueError(f"{name}=True needs the run_dir of the run to {name}")
    if resume and overwrite:
        raise ValueError("resume=True goes on with a run and overwrite=True removes it: give one of them")
    if not minutes > 0:
        raise ValueError(f"checkpoint_minutes must be above 0, got {minutes!r}")
    if steps is not None:
        require_count("checkpoint_steps", steps)


def _end_if_asked(
    interrupts: Interrupts, state: StreamState, saved_in: str | Path | None, checkpoints: Checkpoints | None
) -> None:
    """Ends the stream if a signal has come that asks for it, once its last checkpoint is on the disk."""
    if interrupts.received is None:
        return
    if checkpoints is not None:
        checkpoints.wait()
    if saved_in is None:
        interrupts.end(f"the stream ended {state.place}, and what was learned since its last checkpoint is lost")
    interrupts.end(f"the stream ended {state.place}; it is saved in {saved_in}, to be resumed from there")


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


def _speaker(trainer: L.Trainer, total: int, trainer_options: Mapping[str, Any]) -> Callable[[str], None] | None:
    """Says a line for every experience where a progress bar was asked for and there is no terminal to show it."""
    asked = bool(trainer_options.get("enable_progress_bar")) and trainer.is_global_zero
    return line_by_line(total) if asked and not sys.stderr.isatty() else None


def _check_options(trainer_options: Mapping[str, Any]) -> None:
    own = [name for name in inspect.signature(fit_stream).parameters if name != "trainer_options"]
    known = [*own, *list(inspect.signature(L.Trainer.__init__).parameters)[1:]]
    for name in trainer_options:
        if name not in known:
            raise TypeError(f"fit_stream and Lightning's Trainer have no argument {name!r}{nearest(name, known)}")

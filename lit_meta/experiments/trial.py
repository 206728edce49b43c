"""One batch of every learner, before anything is written: what cannot train is found in seconds, not after hours."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from lit_meta.data.benchmark import Benchmark
from lit_meta.data.module import experience_tensors
from lit_meta.data.tensors import bulk_view
from lit_meta.experiments.config import Experiment
from lit_meta.rules._readout_memory import wide_heads_unsolved
from lit_meta.utils.arguments import located
from lit_meta.utils.heap import release

_BATCH = 64  # Samples of the first batch, where the experiment's is larger.
_FEW = 10
_WIDEST_SOLVED = 4096  # Features of a readout, whose solution takes seconds beyond.

MakeCallbacks = Callable[[str, Path, Benchmark], Sequence[L.Callback]]


def try_learners(
    experiment: Experiment,
    benchmarks: Mapping[int, Benchmark],
    learners: Sequence[str],
    *,
    accelerator: str = "auto",
    callbacks: MakeCallbacks | None = None,
) -> None:
    """Trains every learner on one batch of its stream's first and one of another experience, and throws it away.

    Each is built, learns, consolidates, goes on to another experience and is tested, exactly as `run_seed` would have it do,
    but for readouts of many features, which are not solved. The random state is restored, and nothing is written.

    Args:
        experiment: the experiment.
        benchmarks: of the experiment, by seed; the first seed is tried.
        learners: the names of the learners that are going to run.
        accelerator: Lightning's name of the device.
        callbacks: builds the callbacks of one learner, as in `run_experiment`.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: what the learner fails with; its name is in the message.

    Example:
        >>> from lit_meta.experiments import load_experiment
        >>> from lit_meta.experiments.run import benchmarks_of
        >>> experiment = load_experiment("mlp.ewc_split-digits", ["controls.wide={network: {inputs: 63}}"])
        >>> try_learners(experiment, benchmarks_of(experiment), ["naive", "wide"], accelerator="cpu")
        Traceback (most recent call last):
        ...
        ValueError: controls.wide: expected a batch of samples of 63 values ...
    """
    from lit_meta.experiments.run import run_seed

    seed = experiment.seeds[0]
    tried: list[dict[str, Any]] = []
    for learner in learners:
        # One pass; and what differs in that alone, as the joint bound often does, has been tried.
        part = replace(experiment.for_learner(learner), max_epochs=1)
        if part.to_dict() in tried:
            continue
        tried.append(part.to_dict())
        small = _small(benchmarks[seed], part.batch_size)
        with (
            _random_state_kept(),
            _no_warnings(),
            wide_heads_unsolved(_WIDEST_SOLVED),
            tempfile.TemporaryDirectory() as folder,
            located(place_of(experiment, learner)),
        ):
            run_seed(
                part,
                "joint" if learner == "joint" else "rule",
                seed,
                accelerator=accelerator,
                callbacks=None if callbacks is None else partial(callbacks, learner, Path(folder)),
                benchmark=small,
            )
        release()


def place_of(experiment: Experiment, learner: str) -> str:
    """Where a learner is described in the config, as the beginning of a message.

    Example:
        >>> from lit_meta.experiments import load_experiment
        >>> place_of(load_experiment("mlp.ewc_split-digits"), "naive")
        'naive: '
    """
    if learner in experiment.controls:
        return f"controls.{learner}: "
    return f"overrides.{learner}: " if learner in experiment.overrides else f"{learner}: "


@contextmanager
def _no_warnings() -> Iterator[None]:
    """What a few samples give rise to, such as a critical period that is not over, would mislead; the run warns itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _small(benchmark: Benchmark, batch_size: int) -> Any:
    """A benchmark of one batch of the first and a few samples of another training experience, tested on a few."""
    from lit_meta.data.tensors import describe, tensor_benchmark

    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    # The largest label may be in any experience, and may lie beyond the head.
    largest = max(train[1:], key=_largest_label, default=None)
    ends = [train[0], *([] if largest is None else [largest])]
    tested = [test[0], test[-1]] if len(test) > 1 else test
    # Whatever fails for a shape, a type or a label fails for a small batch, too.
    sizes = (min(batch_size, _BATCH), _FEW)
    small = tensor_benchmark(
        [_batch(e, size) for e, size in zip(ends, sizes, strict=False)], [_batch(e, _FEW) for e in tested]
    )
    if hasattr(benchmark, "class_names"):
        known = {key: getattr(benchmark, key) for key in ("name", "form", "class_names", "class_order", "input_shape")}
        describe(small, **known)
    return small


def _batch(experience: Any, size: int) -> tuple[Tensor, Tensor]:
    """A batch of an experience: samples evenly spaced, so that all of its classes are likely there, and the largest label."""
    view = bulk_view(experience)
    samples, labels = experience_tensors(experience) if view is None else (view.x, view.targets)
    chosen = torch.linspace(0, len(labels) - 1, min(size, len(labels))).round().long()
    chosen[-1] = labels.argmax()
    return view.batch(chosen) if view is not None else (samples[chosen], labels[chosen])


def _largest_label(experience: Any) -> int:
    view = bulk_view(experience)
    classes = getattr(experience, "classes_in_this_experience", (0,)) if view is None else (int(view.targets.max()),)
    return max(map(int, classes))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    state, others = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(others)  # noqa: NPY002

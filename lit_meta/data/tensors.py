"""Avalanche benchmarks of tensors: made from them, and read back as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lit_meta.data.sources.base import check_class_names
from lit_meta.data.view import TensorView, concatenate

Samples = tuple[Tensor, Tensor]

_ATTRIBUTES = ("name", "form", "classes", "class_names", "class_order", "input_shape")


def tensor_benchmark(
    train: Sequence[Samples | TensorView],
    test: Sequence[Samples | TensorView],
    *,
    name: str = "tensors",
    form: str = "class",
    class_names: Sequence[str] | None = None,
    **streams: Sequence[Samples | TensorView],
) -> Any:
    """An Avalanche benchmark of tensors, one pair of samples and labels for each experience.

    Args:
        train: of each training experience, samples ``(samples, *shape)`` and integer labels ``(samples,)``, or a `TensorView`.
        test: of each test experience, likewise.
        name: of the benchmark, for results and checkpoints.
        form: ``"class"``, ``"domain"`` or ``"task"``, see `lit_meta.data.scenarios.split`.
        class_names: the name of every label; by default the labels themselves, up to the largest.
        **streams: further streams by name, such as ``validation``.

    Returns:
        An `avalanche.benchmarks.CLScenario` with ``train_stream``, ``test_stream`` and the attributes that
        `lit_meta.data.scenario` describes.

    Raises:
        ValueError: no experience, samples and labels of different lengths, labels that are not integers from 0, or a name of
            two classes.

    Example:
        >>> x, y = torch.rand(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
        >>> benchmark = tensor_benchmark([(x[:3], y[:3]), (x[3:], y[3:])], [(x, y)], name="two classes")
        >>> len(benchmark.train_stream), benchmark.classes, benchmark.input_shape
        (2, 2, (4,))
    """
    views = {
        stream: [_view(part) for part in parts] for stream, parts in {"train": train, "test": test, **streams}.items()
    }
    if not views["train"] or not views["test"]:
        raise ValueError("a benchmark needs at least one training and one test experience")
    benchmark = benchmark_of(views)
    if class_names is None:
        largest = max(int(view.targets.max()) for parts in views.values() for view in parts)
        class_names = [str(label) for label in range(largest + 1)]
    check_class_names(class_names, name)
    return describe(
        benchmark,
        name=name,
        form=form,
        class_names=tuple(class_names),
        class_order=tuple(range(len(class_names))),
        input_shape=tuple(views["train"][0][0][0].shape),
    )


def describe(
    benchmark: Any,
    *,
    name: str,
    form: str,
    class_names: tuple[str, ...],
    class_order: tuple[int, ...],
    input_shape: tuple[int, ...],
) -> Any:
    """Gives a benchmark the attributes that `lit_meta.data.scenario` promises; returns it."""
    benchmark.name = name
    benchmark.form = form
    benchmark.class_names = class_names
    benchmark.classes = len(class_names)
    benchmark.class_order = class_order
    benchmark.input_shape = input_shape
    return benchmark


def _view(samples: Samples | TensorView) -> TensorView:
    if isinstance(samples, TensorView):
        return samples
    x, y = samples
    if len(x) != len(y) or y.dim() != 1:
        raise ValueError(
            f"expected one label for each sample, got samples {tuple(x.shape)} and labels {tuple(y.shape)}"
        )
    if y.is_floating_point() or y.dtype == torch.bool or (len(y) and int(y.min()) < 0):
        raise ValueError(f"expected labels as integers from 0, got {y.dtype} from {y.min() if len(y) else 'none'}")
    return TensorView(x, y.long(), torch.arange(len(y)))


def joint(benchmark: Any) -> Any:
    """The same data with a single training experience that holds everything: the upper bound of a scenario.

    Args:
        benchmark: an Avalanche benchmark, from `scenario` or from anywhere else.

    Returns:
        A benchmark whose training stream has one experience and whose other streams are the same as before.
        Attributes that `scenario` attaches are carried over.

    Example:
        >>> from lit_meta.data import scenario
        >>> benchmark = joint(scenario("split-digits"))
        >>> len(benchmark.train_stream), len(benchmark.test_stream)
        (1, 10)
    """
    return with_train(benchmark, [joined(train_parts(benchmark))])


def train_parts(benchmark: Any) -> list[Any]:
    """What each training experience of a benchmark holds: views of tensors if all have them, else data sets."""
    views = [bulk_view(experience) for experience in benchmark.train_stream]
    if views and None not in views:
        return views
    return [experience.dataset for experience in benchmark.train_stream]


def joined(parts: Sequence[Any]) -> Any:
    """Views of tensors, or Avalanche's data sets, one behind the other."""
    if isinstance(parts[0], TensorView):
        return concatenate(parts)
    return reduce(lambda one, other: one.concat(other), parts)


def with_train(benchmark: Any, train: Sequence[Any]) -> Any:
    """A benchmark with other training experiences, of views or data sets; its further streams and attributes are kept."""
    streams: dict[str, list[Any]] = {
        stream: [e.dataset if (view := bulk_view(e)) is None else view for e in experiences]
        for stream, experiences in benchmark.streams.items()
        if stream != "train"
    }
    result = benchmark_of({"train": list(train), **streams})
    for attribute in _ATTRIBUTES:
        if hasattr(benchmark, attribute):
            setattr(result, attribute, getattr(benchmark, attribute))
    return result


def bulk_view(experience: Any) -> TensorView | None:
    """The tensors behind an experience of a `scenario`, for access to many samples at once.

    Args:
        experience: an Avalanche experience.

    Returns:
        The view, or ``None`` if the experience is not from `scenario`, or if its data set has been replaced
        since (by one with other transforms, say), so that the tensors would not be what its items are.
    """
    view, dataset = getattr(experience, "tensor_view", None) or (None, None)
    return view if view is not None and dataset is experience.dataset else None


def benchmark_of(streams: dict[str, list[Any]]) -> Any:
    """An Avalanche benchmark of `TensorView`s (or of Avalanche data sets) for each stream."""
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels

    views = {name: [d if isinstance(d, TensorView) else None for d in data] for name, data in streams.items()}
    datasets = {
        name: [_avalanche_dataset(d) if isinstance(d, TensorView) else d for d in data]
        for name, data in streams.items()
    }
    benchmark = with_classes_timeline(benchmark_from_datasets(**datasets))
    # The data sets of a benchmark from elsewhere need not have task labels.
    if all(hasattr(d, "targets_task_labels") for data in datasets.values() for d in data):
        benchmark = with_task_labels(benchmark)
    for name, stream in benchmark.streams.items():
        for experience, view in zip(stream, views[name], strict=True):
            if view is not None:
                experience.tensor_view = (view, experience.dataset)
    return benchmark


def _avalanche_dataset(view: TensorView) -> Any:
    from avalanche.benchmarks.utils import ConstantSequence, DataAttribute, TaskLabels
    from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset

    targets = DataAttribute(view.targets.tolist(), "targets")
    task_labels = TaskLabels(ConstantSequence(0, len(view)))
    return TaskAwareSupervisedClassificationDataset([view], data_attributes=[targets, task_labels])

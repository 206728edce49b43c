"""Streams of any length: an experience is made when it is asked for, from its position alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import torch

from lit_meta.data.tensors import benchmark_of, describe
from lit_meta.data.view import TensorView


@dataclass(frozen=True)
class TensorExperience:
    """An experience over tensors, with the attributes of Avalanche's that this package reads.

    Attributes:
        dataset: its samples.
        current_experience: its position in the stream.
    """

    dataset: TensorView
    current_experience: int

    def logging(self) -> TensorExperience:
        """Itself: nothing of it is hidden while learning."""
        return self

    @property
    def tensor_view(self) -> tuple[TensorView, TensorView]:
        """What `lit_meta.data.tensors.bulk_view` reads."""
        return self.dataset, self.dataset

    @cached_property
    def classes_in_this_experience(self) -> list[int]:
        """The labels, in rising order."""
        return [int(label) for label in torch.unique(self.dataset.targets)]


class LazyStream(Sequence[TensorExperience]):
    """A stream that keeps none of its experiences, so that ten million cost no more than ten.

    Args:
        length: number of experiences.
        view: makes the samples of an experience from its position; the same every time.

    Example:
        >>> x, y = torch.rand(9, 4), torch.arange(9)
        >>> stream = LazyStream(10**7, lambda i: TensorView(x, y, torch.tensor([i % 9])))
        >>> len(stream), stream[-1].classes_in_this_experience, len(stream[:20])
        (10000000, [0], 20)
    """

    def __init__(self, length: int, view: Callable[[int], TensorView]) -> None:
        self._length, self._view = length, view

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[TensorExperience]:
        return (self[position] for position in range(self._length))

    @overload
    def __getitem__(self, position: int) -> TensorExperience: ...

    @overload
    def __getitem__(self, position: slice) -> list[TensorExperience]: ...

    def __getitem__(self, position: int | slice) -> TensorExperience | list[TensorExperience]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(self._length))]
        index = range(self._length)[position]
        return TensorExperience(self._view(index), index)


@dataclass
class LazyBenchmark:
    """A benchmark of lazy streams, with the attributes that `lit_meta.scenario` describes.

    Attributes:
        train_stream: training experiences.
        test_stream: test experiences.
        boundaries: whether an experience's end means anything; a rule that consolidates there cannot be used if not.
    """

    train_stream: LazyStream
    test_stream: LazyStream
    boundaries: bool = False
    name: str = ""
    form: str = ""
    classes: int = 0
    class_names: tuple[str, ...] = ()
    class_order: tuple[int, ...] = ()
    input_shape: tuple[int, ...] = ()

    @property
    def streams(self) -> dict[str, LazyStream]:
        """Both streams by name, as of an Avalanche benchmark."""
        return {"train": self.train_stream, "test": self.test_stream}


def to_avalanche(benchmark: Any) -> Any:
    """The same streams as an Avalanche benchmark, for Avalanche's own strategies.

    Args:
        benchmark: any of `lit_meta.scenario`; those that are Avalanche's already are returned unchanged.

    Example:
        >>> from lit_meta import scenario
        >>> benchmark = to_avalanche(scenario("online-digits", experiences=2, samples=500))
        >>> type(benchmark).__module__.split(".")[0], len(benchmark.train_stream)
        ('avalanche', 3)
    """
    if not isinstance(benchmark, LazyBenchmark):
        return benchmark
    streams = {name: [e.dataset for e in stream] for name, stream in benchmark.streams.items()}
    made = describe(
        benchmark_of(streams),
        name=benchmark.name,
        form=benchmark.form,
        class_names=benchmark.class_names,
        class_order=benchmark.class_order,
        input_shape=benchmark.input_shape,
    )
    made.boundaries = benchmark.boundaries
    return made

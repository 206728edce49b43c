"""The protocol of a benchmark, fulfilled by Avalanche's and by any object with the two streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Benchmark(Protocol):
    """A stream of training experiences and one of test experiences.

    An experience has a ``dataset`` of (sample, label, ...) and, in training, its position as
    ``logging().current_experience``, as in Avalanche. A benchmark may also have a ``name``; those of `lit_meta.scenario` are
    `LabelledBenchmark` objects.

    Example:
        >>> isinstance(BenchmarkView("nothing", [], []), Benchmark), isinstance([], Benchmark)
        (True, False)
    """

    @property
    def train_stream(self) -> Iterable[Any]:
        """Training experiences, in their order."""
        ...

    @property
    def test_stream(self) -> Iterable[Any]:
        """Test experiences."""
        ...


@runtime_checkable
class LabelledBenchmark(Benchmark, Protocol):
    """A benchmark that also describes how its classes are presented."""

    @property
    def form(self) -> str:
        """``"class"``, ``"domain"``, or ``"task"`` if the task of every sample is provided."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes, over all experiences."""
        ...


@dataclass(frozen=True)
class BenchmarkView:
    """A benchmark composed of some experiences of another.

    Attributes:
        name: its name in results.
        train_stream: training experiences.
        test_stream: test experiences.
        form: as of `LabelledBenchmark`; empty if the benchmark has none.
        classes: number of classes; 0 if the benchmark does not define it.
    """

    name: str
    train_stream: Sequence[Any]
    test_stream: Sequence[Any]
    form: str = ""
    classes: int = 0


def benchmark_name(benchmark: object) -> str:
    """The name of a benchmark, or of its type if it has none.

    Example:
        >>> benchmark_name(BenchmarkView("halves", [], []))
        'halves'
    """
    return str(getattr(benchmark, "name", None) or type(benchmark).__name__)


def tells_tasks(benchmark: Benchmark) -> bool:
    """Whether the benchmark provides the task of every sample, in training and testing.

    Example:
        >>> tells_tasks(BenchmarkView("halves", [], [], form="task", classes=10))
        True
    """
    return isinstance(benchmark, LabelledBenchmark) and benchmark.form == "task"


def stream_classes(stream: Iterable[Any]) -> list[list[int]]:
    """The labels in each experience, as attached by Avalanche's ``with_classes_timeline``; empty without it."""
    experiences = list(stream)
    if not all(hasattr(experience, "classes_in_this_experience") for experience in experiences):
        return []
    return [sorted(int(label) for label in experience.classes_in_this_experience) for experience in experiences]

"""What the package asks of a benchmark; Avalanche's fulfil it, and so does any object with the two streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Benchmark(Protocol):
    """A stream of experiences to learn, and one to be tested on.

    An experience has a ``dataset`` of (sample, label, ...) and, in training, ``logging().current_experience``, its
    position; those of Avalanche do. A benchmark may also have a ``name``, and one of `lit_meta.scenario` is a
    `LabelledBenchmark`.

    Example:
        >>> isinstance(BenchmarkView("nothing", [], []), Benchmark), isinstance([], Benchmark)
        (True, False)
    """

    @property
    def train_stream(self) -> Iterable[Any]:
        """Experiences to learn, in their order."""
        ...

    @property
    def test_stream(self) -> Iterable[Any]:
        """Experiences to be tested on."""
        ...


@runtime_checkable
class LabelledBenchmark(Benchmark, Protocol):
    """A benchmark that also says how its classes come."""

    @property
    def form(self) -> str:
        """``"class"``, ``"domain"``, or ``"task"`` where the task of every sample is told."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes, over all experiences."""
        ...


@dataclass(frozen=True)
class BenchmarkView:
    """Experiences of a benchmark, chosen and put together anew.

    Attributes:
        name: what the results call it.
        train_stream: experiences to learn.
        test_stream: experiences to be tested on.
        form: as of `LabelledBenchmark`; empty where the benchmark did not say.
        classes: number of classes; 0 where the benchmark did not say.
    """

    name: str
    train_stream: Sequence[Any]
    test_stream: Sequence[Any]
    form: str = ""
    classes: int = 0


def benchmark_name(benchmark: Benchmark) -> str:
    """The name of a benchmark, or of its type where it has none.

    Example:
        >>> benchmark_name(BenchmarkView("halves", [], []))
        'halves'
    """
    return str(getattr(benchmark, "name", None) or type(benchmark).__name__)


def tells_tasks(benchmark: Benchmark) -> bool:
    """Whether the benchmark tells the task of every sample, in learning and in testing.

    Example:
        >>> tells_tasks(BenchmarkView("halves", [], [], form="task", classes=10))
        True
    """
    return isinstance(benchmark, LabelledBenchmark) and benchmark.form == "task"


def stream_classes(stream: Iterable[Any]) -> list[list[int]]:
    """The labels in each experience, as Avalanche's ``with_classes_timeline`` attaches them; empty where it has not."""
    experiences = list(stream)
    if not all(hasattr(experience, "classes_in_this_experience") for experience in experiences):
        return []
    return [sorted(int(label) for label in experience.classes_in_this_experience) for experience in experiences]

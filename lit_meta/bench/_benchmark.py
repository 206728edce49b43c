"""Benchmarks: two pieces of work side by side, or one piece of work at several sizes."""

from __future__ import annotations

import gc
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lit_meta.bench._statistics import ratio_of_medians, rounded, scaling_exponent

Work = Callable[[], object]
Clock = Literal["wall", "processor"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}

# A sample lasts at least this long, so that reading the clock and the call itself are negligible.
_SECONDS_PER_SAMPLE = 0.05


@dataclass(frozen=True)
class Benchmark:
    """A subject, what people would use instead, and a target for their ratio.

    Attributes:
        id: ``"group/name"``; the command accepts either.
        subject: what is measured, in a few words.
        baseline: what it is compared with, in a few words.
        make_subject: prepares the subject; its result is called repeatedly, one unit of work per call.
        make_baseline: likewise for the baseline; a call does the same amount of work.
        target: the largest acceptable ratio subject / baseline; None if there is no target.
        quantity: ``"seconds"`` times the calls; ``"bytes"`` and ``"processor seconds"`` use the number that a call returns.
        requires: modules without which the benchmark is skipped, such as ``("snntorch",)``.

    Example:
        >>> benchmark = Benchmark("sum/half", "half", "whole", lambda: lambda: 1.0, lambda: lambda: 2.0, 0.5, "bytes")
        >>> result = benchmark.run(repeats=3)
        >>> result.ratio, result.holds
        (0.5, True)
    """

    id: str
    subject: str
    baseline: str
    make_subject: Callable[[], Work]
    make_baseline: Callable[[], Work]
    target: float | None = None
    quantity: Literal["seconds", "bytes", "processor seconds"] = "seconds"
    requires: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The required modules that are not installed."""
        return [name for name in self.requires if importlib.util.find_spec(name) is None]

    def run(self, *, repeats: int, clock: Clock = "wall") -> Result:
        """Measures both in turn; which of them comes first alternates between repeats.

        Args:
            repeats: measurements of each, at least 2.
            clock: ``"wall"``, or ``"processor"``: the processor time of this process, which is far less affected by other
                processes on a busy machine (use a single thread: threads waiting for work count too).

        Returns:
            The ratio with its interval, and whether it meets the target.

        Raises:
            ValueError: fewer than 2 repeats, or a call that returns no number although the quantity needs one.
        """
        if repeats < 2:
            raise ValueError(f"a spread needs at least 2 repeats, got {repeats}")
        works = [self.make_subject(), self.make_baseline()]
        measure = _Timer(works, CLOCKS[clock]) if self.quantity == "seconds" else _Returned(self.id, self.quantity)
        samples: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats):
            for which in (0, 1) if repeat % 2 == 0 else (1, 0):
                samples[which].append(measure(works[which]))
        ratio, low, high = ratio_of_medians(*samples)
        return Result(
            id=self.id,
            subject=self.subject,
            baseline=self.baseline,
            ratio=rounded(ratio),
            low=rounded(low),
            high=rounded(high),
            target=self.target,
            holds=None if self.target is None else ratio <= self.target,
            quantity=self.quantity,
            subject_median=rounded(statistics.median(samples[0])),
            baseline_median=rounded(statistics.median(samples[1])),
            repeats=repeats,
        )


@dataclass(frozen=True)
class Result:
    """A ratio of medians with its 95 % bootstrap interval; a row of the report."""

    id: str
    subject: str
    baseline: str
    ratio: float
    low: float
    high: float
    target: float | None
    holds: bool | None
    quantity: str
    subject_median: float
    baseline_median: float
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return asdict(self)


@dataclass(frozen=True)
class Scaling:
    """How the time of a piece of work grows with one size: ``seconds ~ size^exponent``.

    Attributes:
        id: ``"group/name"``.
        subject: what is measured.
        against: what is varied, such as ``"hidden width"``.
        values: its values, in rising order.
        make: prepares the work at a value.
        target: the largest acceptable exponent; None if there is no target.
        requires: as for a `Benchmark`.
    """

    id: str
    subject: str
    against: str
    values: tuple[int, ...]
    make: Callable[[int], Work]
    target: float | None = None
    requires: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The required modules that are not installed."""
        return [name for name in self.requires if importlib.util.find_spec(name) is None]

    def run(self, *, repeats: int, clock: Clock = "wall") -> ScalingResult:
        """Measures all values in turn, ``repeats`` times; see `Benchmark.run` for the clock."""
        works = [self.make(value) for value in self.values]
        timers = [_Timer([work], CLOCKS[clock]) for work in works]
        samples: list[list[float]] = [[] for _ in works]
        for _ in range(repeats):
            for i, (timer, work) in enumerate(zip(timers, works, strict=True)):
                samples[i].append(timer(work))
        exponent, low, high = scaling_exponent(self.values, samples)
        return ScalingResult(
            id=self.id,
            subject=self.subject,
            against=self.against,
            values=self.values,
            seconds=tuple(rounded(statistics.median(s)) for s in samples),
            exponent=rounded(exponent),
            low=rounded(low),
            high=rounded(high),
            target=self.target,
            holds=None if self.target is None else exponent <= self.target,
            repeats=repeats,
        )


@dataclass(frozen=True)
class ScalingResult:
    """A fitted exponent with its 95 % bootstrap interval, and the medians that it was fitted to."""

    id: str
    subject: str
    against: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    low: float
    high: float
    target: float | None
    holds: bool | None
    repeats: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return asdict(self)


class _Timer:
    """Seconds per call, averaged over as many calls as the slowest work needs to fill a sample."""

    def __init__(self, works: Sequence[Work], now: Callable[[], float]) -> None:
        self._now = now
        slowest = 0.0
        for work in works:
            work()  # Warms up caches, lazy initialisation and memory pools, which are not to be measured.
            slowest = max(slowest, self._time(work, 1))
        self._calls = max(1, math.ceil(_SECONDS_PER_SAMPLE / max(slowest, 1e-6)))

    def __call__(self, work: Work) -> float:
        return self._time(work, self._calls) / self._calls

    def _time(self, work: Work, calls: int) -> float:
        collecting = gc.isenabled()
        gc.disable()
        try:
            started = self._now()
            for _ in range(calls):
                work()
            return self._now() - started
        finally:
            if collecting:
                gc.enable()


class _Returned:
    """The number that a call returns."""

    def __init__(self, id: str, quantity: str) -> None:
        self._id, self._quantity = id, quantity

    def __call__(self, work: Work) -> float:
        count = work()
        if isinstance(count, bool) or not isinstance(count, (int, float)):
            raise ValueError(
                f"benchmark {self._id!r} counts {self._quantity}, so a call must return a number, got {count!r}"
            )
        return float(count)

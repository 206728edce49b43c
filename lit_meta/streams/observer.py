"""Protocols by which callbacks of the Trainer take part in a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from lit_meta.cost.totals import Cost


@runtime_checkable
class ChecksStream(Protocol):
    """A callback that cannot work in every stream, and refuses before training starts."""

    def check_stream(self, *, tells_tasks: bool) -> None:
        """Called once, before the stream begins.

        Args:
            tells_tasks: whether a rule or the benchmark provides the task of every sample, also at test time.

        Raises:
            ValueError: this callback cannot work in such a stream.
        """
        ...


@runtime_checkable
class CountsCost(Protocol):
    """A callback that counts the cost of learning."""

    def experience_cost(self) -> Cost:
        """The cost of the experience that has just been learned."""
        ...


class StreamObservers:
    """Those callbacks of a Trainer that take part in the stream.

    Args:
        callbacks: of any kind; one takes part by having the method of `ChecksStream` or of `CountsCost`.

    Raises:
        ValueError: several of them count the cost, which would then be counted several times.

    Example:
        >>> from lit_meta import CostLedger
        >>> StreamObservers([CostLedger()]).counts_cost
        True
    """

    def __init__(self, callbacks: Iterable[object]) -> None:
        given = list(callbacks)
        self._checking = [callback for callback in given if isinstance(callback, ChecksStream)]
        counting = [callback for callback in given if isinstance(callback, CountsCost)]
        if len(counting) > 1:
            names = " and ".join(type(callback).__name__ for callback in counting)
            raise ValueError(f"{names} both count the cost of the stream: pass only one of them")
        self._counting = counting[0] if counting else None

    @property
    def counts_cost(self) -> bool:
        """Whether one of them counts the cost."""
        return self._counting is not None

    def check(self, *, tells_tasks: bool) -> None:
        """Checks that each of them can work in this stream.

        Raises:
            ValueError: one of them cannot.
        """
        for callback in self._checking:
            callback.check_stream(tells_tasks=tells_tasks)

    def experience_cost(self) -> Cost | None:
        """The cost of the experience just learned; None if none of them counts it."""
        return None if self._counting is None else self._counting.experience_cost()

"""What instruments leave out when they count arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_left_out: ContextVar[bool] = ContextVar("left_out", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Within the block, arithmetic is not part of the cost of learning.

    For what is worked out again after a run was resumed, or tried out once for a network: the cost of a run is then the same
    however often it was interrupted.

    Example:
        >>> with uncounted():
        ...     is_counted()
        False
        >>> is_counted()
        True
    """
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def is_counted() -> bool:
    """Whether arithmetic counts."""
    return not _left_out.get()

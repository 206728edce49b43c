"""Time steps that belong to a layer's own dynamics: they are recorded, and are no place for a rule to act at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_outside: ContextVar[bool] = ContextVar("outside_rules", default=False)


@contextmanager
def outside_rules() -> Iterator[None]:
    """Calls of weight layers inside are recorded for the backward pass, and rules do not see them.

    A spiking network calls a layer so for all time steps but the last, where the gradient of the last spike goes back along
    the layer's own membranes. The network must then call the layer once more, outside, with the step that rules learn at.

    Example:
        >>> with outside_rules():
        ...     is_outside_rules()
        True
    """
    token = _outside.set(True)
    try:
        yield
    finally:
        _outside.reset(token)


def is_outside_rules() -> bool:
    """Whether the call is inside `outside_rules`."""
    return _outside.get()

"""Which session is in an experience of which network, and with which rules: two would not know of each other's steps."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from lit_meta.core._training_steps import TrainingSteps

# By the identity of networks and rules, so that neither has to be hashable; sessions are held weakly.
_LEARNING: dict[int, ref[TrainingSteps]] = {}


def check(session: TrainingSteps) -> None:
    """Checks that no other session is in an experience with a session's network or rules.

    Raises:
        ValueError: one is.
    """
    for rule in session.rules:
        if _other(session, rule) is not None:
            raise ValueError(
                f"this {type(rule).__name__} is learning in another session, and one rule has one memory: give each network a "
                "rule of its own (rule.clone())"
            )
    other = _other(session, session.network)
    if other is not None and not (session.shares_network and other.shares_network):
        names = " and ".join(type(rule).__name__ for rule in other.rules)
        raise ValueError(
            f"another session ({names}) is in an experience of this network: end it (end_experience) or abandon it (close) "
            "first, or give one session all rules"
        )


def claim(session: TrainingSteps) -> None:
    """Says that a session is in an experience."""
    for key in (session.network, *session.rules):
        _LEARNING[id(key)] = ref(session)


def release(session: TrainingSteps) -> None:
    """Says that it no longer is."""
    for key in (session.network, *session.rules):
        if _other(session, key) is None:
            _LEARNING.pop(id(key), None)


def _other(session: TrainingSteps, key: object) -> TrainingSteps | None:
    known = _LEARNING.get(id(key))
    holder = None if known is None else known()
    if holder is None or holder is session:
        return None
    # The number may be that of an object that is gone.
    return holder if key is holder.network or any(key is rule for rule in holder.rules) else None

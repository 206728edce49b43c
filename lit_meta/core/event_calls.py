"""How a session calls its rules: directly, or inside the contexts of observers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lit_meta.core.rule import Rule

# Returns the context in which a rule answers an event.
Observer = Callable[[Rule, str], AbstractContextManager[object]]


class EventCalls:
    """The calls that answer each event, in the order of the rules.

    Without an observer these are the rules' own methods, so that instruments have no overhead when they are not used.

    Args:
        answering: by event, the rules that answer it.

    Example:
        >>> from contextlib import nullcontext
        >>> rule, events = Rule(), []
        >>> calls = EventCalls({"synchronize": [rule]})
        >>> with calls.observe(lambda rule, event: nullcontext(events.append(event))):
        ...     calls["synchronize"][0](None)
        >>> calls["synchronize"][0](None)
        >>> events
        ['synchronize']
    """

    def __init__(self, answering: Mapping[str, Sequence[Rule]]) -> None:
        self._answering = answering
        self._observers: list[Observer] = []
        self._calls: dict[str, list[Callable[..., Any]]] = {}
        self._connect()

    def __getitem__(self, event: str) -> list[Callable[..., Any]]:
        return self._calls[event]

    @contextmanager
    def observe(self, observer: Observer) -> Iterator[None]:
        """Within the block, every call runs inside a context that the observer returns; the last observer's is innermost."""
        self._observers.insert(0, observer)
        self._connect()
        try:
            yield
        finally:
            self._observers.remove(observer)
            self._connect()

    def _connect(self) -> None:
        self._calls = {event: [self._call(rule, event) for rule in rules] for event, rules in self._answering.items()}

    def _call(self, rule: Rule, event: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(rule, event)
        for observer in self._observers:
            call = _within(observer, rule, event, call)
        return call


def _within(observer: Observer, rule: Rule, event: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def observed(*arguments: Any) -> Any:
        with observer(rule, event):
            return call(*arguments)

    return observed

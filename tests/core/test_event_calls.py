"""Those who observe a session see every event that a rule answers, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from lit_meta import Session
from lit_meta.core.rule import EVENTS, Layer, Rule, Synapses


class Everything(Rule):
    """Answers every event and notes whether it was observed meanwhile."""

    needs_data = False

    def __init__(self) -> None:
        super().__init__()
        self.answered: list[tuple[str, tuple[str, ...]]] = []
        self.observers: list[str] = []


def _answer(event: str):
    def method(self: Everything, *arguments: object) -> Tensor | None:
        self.answered.append((event, tuple(self.observers)))
        return torch.zeros_like(arguments[1]) if event == "local_error" else None

    return method


for _event in EVENTS:
    setattr(Everything, _event, _answer(_event))


def learn(session: Session, steps: int = 1) -> None:
    optimizer = torch.optim.SGD(session.network.parameters(), lr=0.1)
    x, y = torch.ones(3, 4), torch.tensor([0, 1, 0])
    with session.experience():
        for _ in range(steps):
            with session.step(x, y, optimizer):
                nn.functional.cross_entropy(session.network(x), y).backward()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


@pytest.fixture
def session() -> Session:
    return Session(network(), Everything())


def observer(rule: Everything, name: str, seen: list[str]):
    @contextmanager
    def context(observed: Rule, event: str) -> Iterator[None]:
        assert observed is rule
        seen.append(event)
        rule.observers.append(name)
        try:
            yield
        finally:
            rule.observers.remove(name)

    return context


def test_every_event_runs_within_the_observers_context_and_is_named(session):
    rule, seen = session.rules[0], []
    with session.observe(observer(rule, "a", seen)):
        learn(session)
    assert set(seen) == set(EVENTS)
    assert [(event, ("a",)) for event in seen] == rule.answered


def test_observers_that_come_and_go_in_a_stream_see_their_part_only(session):
    rule, first, second = session.rules[0], [], []
    with session.observe(observer(rule, "a", first)):
        with session.observe(observer(rule, "b", second)):
            learn(session)
            assert {observers for _, observers in rule.answered} == {("a", "b")}
        learn(session)
    rule.answered.clear()
    learn(session)  # The layers are watched by the same hooks as before, which must have forgotten the observers.
    assert {observers for _, observers in rule.answered} == {()}
    assert len(first) == 2 * len(second) == 2 * len(rule.answered)


def test_a_failing_rule_leaves_the_context(session):
    class Failing(Rule):
        def gradient(self, synapses: Synapses) -> None:
            raise ArithmeticError

    left = []

    @contextmanager
    def context(rule: Rule, event: str) -> Iterator[None]:
        try:
            yield
        finally:
            left.append(event)

    failing = Session(network(), Failing())
    with pytest.raises(ArithmeticError), failing.observe(context):
        learn(failing)
    assert left == ["gradient"]


def test_where_nobody_observes_the_rules_own_methods_are_called(session):
    class Gradient(Rule):
        def gradient(self, synapses: Synapses) -> None:
            return None

        def layer_input(self, layer: Layer, inputs: Tensor) -> None:
            return None

    rule = Gradient()
    session = Session(network(), rule)
    assert session._calls["gradient"] == [rule.gradient]
    assert session._calls["update"] == []

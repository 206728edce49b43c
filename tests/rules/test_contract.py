"""What holds for every rule in the registry."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.rules import RULES, Rule, build_rule
from lit_meta.utils.paths import configs_folder
from tests.rules import drivers

# Sixteen steps of a small network are too few for the usual settings to replace a unit.
SHORT = {"continual-backprop": {"rate": 0.1, "maturity": 2}}


def from_config(name: str) -> Rule:
    settings = yaml.safe_load((configs_folder() / "rule" / f"{name}.yaml").read_text())
    return build_rule(**settings | SHORT.get(name, {}))


class Nothing(Rule):
    """Answers every event and does nothing."""

    def begin_experience(self, synapses):
        pass

    def before_forward(self, synapses, inputs, targets):
        pass

    def layer_input(self, layer, inputs):
        pass

    def gradient(self, synapses):
        pass

    def update(self, synapses, before):
        pass

    def end_experience(self, synapses, experience):
        pass


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_file_one_config_and_one_test_file(name):
    rule = from_config(name)
    assert type(rule) is RULES[name]
    assert type(rule).__module__ == f"lit_meta.rules.{name.replace('-', '_')}"
    assert (Path(__file__).parent / f"test_{name.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize("host", drivers.HOSTS)
@pytest.mark.parametrize("name", RULES)
def test_every_host_gives_the_same_bits(name, host, make_network, two_experiences):
    rule = from_config(name)
    loop = drivers.weights_after(drivers.plain_loop, make_network(), rule.clone(), two_experiences)
    other = drivers.weights_after(drivers.HOSTS[host], make_network(), rule.clone(), two_experiences)
    assert torch.equal(loop, other)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_no_silent_no_op(name, make_network, two_experiences):
    without = drivers.weights_after(drivers.plain_loop, make_network(), Nothing(), two_experiences)
    with_rule = drivers.weights_after(drivers.plain_loop, make_network(), from_config(name), two_experiences)
    assert not torch.equal(without, with_rule)


@pytest.mark.parametrize("host", drivers.HOSTS)
def test_a_rule_that_does_nothing_changes_nothing(host, make_network, two_experiences):
    network = make_network()
    for x, y in two_experiences:
        optimizer = drivers.optimizer_for(network)
        for _ in range(drivers.EPOCHS):
            for inputs, targets in zip(x.split(drivers.BATCH), y.split(drivers.BATCH), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs), targets).backward()
                optimizer.step()
    plain = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert torch.equal(plain, drivers.weights_after(drivers.HOSTS[host], make_network(), Nothing(), two_experiences))


def train(session: Session, optimizer, x, y, batches: range) -> None:
    for i in batches:
        inputs, targets = x[i * 9 : i * 9 + 9], y[i * 9 : i * 9 + 9]
        with session.step(inputs, targets, optimizer):
            F.cross_entropy(session.network(inputs), targets).backward()


@pytest.mark.parametrize("name", RULES)
def test_a_state_saved_in_the_middle_of_an_experience_goes_on_to_the_same_bits(name, make_network, two_experiences):
    (x0, y0), (x1, y1) = two_experiences
    network = make_network()
    session = Session(network, from_config(name))
    optimizer = drivers.optimizer_for(network)
    with session.experience([(x0, y0)]):
        train(session, optimizer, x0, y0, range(4))
    session.begin_experience()
    train(session, optimizer, x1, y1, range(2))
    saved = copy.deepcopy((session.state_dict(), network.state_dict(), optimizer.state_dict()))
    train(session, optimizer, x1, y1, range(2, 4))
    session.end_experience([(x1, y1)])

    other = make_network(seed=1)
    second = Session(other, from_config(name))
    second.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    resumed = drivers.optimizer_for(other)
    resumed.load_state_dict(saved[2])
    second.begin_experience()
    train(second, resumed, x1, y1, range(2, 4))
    second.end_experience([(x1, y1)])
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    first_state, second_state = session.rules[0].state.state_dict(), second.rules[0].state.state_dict()
    assert first_state.keys() == second_state.keys()
    assert all(torch.equal(first_state[key], second_state[key]) for key in first_state)


@pytest.mark.parametrize("name", RULES)
def test_bad_batches_are_refused_and_leave_the_weights_alone(name, make_network, two_experiences):
    (x, y), _ = two_experiences
    network = make_network()
    before = [p.detach().clone() for p in network.parameters()]
    session = Session(network, from_config(name))
    optimizer = drivers.optimizer_for(network)
    session.begin_experience()
    poisoned = x[:9].clone()
    poisoned[2, 3] = float("nan")
    for inputs, targets, message in (
        (poisoned, y[:9], "NaN or infinite"),
        (x[:0], y[:0], "batch is empty"),
        *([(x[:9], None, "needs labels")] if session.rules[0].needs_labels else []),
    ):
        with pytest.raises(ValueError, match=message), session.step(inputs, targets, optimizer):
            raise AssertionError("the step should not have begun")
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("name", [name for name in RULES if not from_config(name).needs_boundaries])
def test_a_rule_without_boundaries_takes_nothing_from_them(name, make_network, two_experiences):
    found = []
    for announced in (False, True):
        network = make_network()
        session, optimizer = Session(network, from_config(name)), drivers.optimizer_for(network)
        session.begin_experience()
        for number, (x, y) in enumerate(two_experiences):
            if announced and number:
                # Boundaries in the wrong places, with data of no experience.
                session.end_experience([(torch.full_like(x, 1e3), y.flip(0))])
                session.begin_experience()
            train(session, optimizer, x, y, range(3))
            if announced:
                session.end_experience([(torch.full_like(x, -1e3), y.flip(0))])
                session.begin_experience()
            train(session, optimizer, x, y, range(3, 4))
        network.eval()(x)  # Where weights are worked out when they are looked at, this looks.
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [name for name in RULES if not from_config(name).needs_labels])
def test_a_rule_without_labels_takes_nothing_from_them(name, make_network, two_experiences):
    found = []
    for poison in (lambda y: None, lambda y: torch.full_like(y, -7)):
        network = make_network()
        session, optimizer = Session(network, from_config(name)), drivers.optimizer_for(network)
        for x, y in two_experiences:
            with session.experience([(x, poison(y))]):
                for inputs, targets in zip(x.split(9), y.split(9), strict=True):
                    with session.step(inputs, poison(targets), optimizer):
                        F.cross_entropy(network(inputs), targets).backward()
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", RULES)
def test_hyperparameters_make_the_same_rule_again(name):
    rule = from_config(name)
    assert repr(rule.clone()) == repr(rule)
    assert len(rule.clone().state) == 0


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_what_it_remembers(name, make_network, two_experiences):
    network, rule = make_network(), from_config(name)
    drivers.plain_loop(network, rule, two_experiences)
    kept, memory = rule.remembers(network), rule.state.state_dict()
    assert kept is not None
    assert {key for key, part in kept.items() if part.always} <= memory.keys() <= kept.keys()
    for key, tensor in memory.items():
        assert kept[key].fits(tensor.shape), (key, kept[key], tensor.shape)
        assert not kept[key].nonzero or bool(tensor.any()) or not tensor.numel(), key

"""The pull to anchors as a proximal step: closed form, stable at any strength, and nothing the optimizer sees."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, MAS, SI, Session
from lit_meta.functional.penalty import pull_to_anchors_, quadratic_penalty

X = torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0], [-1.0, 0.3]])
Y = torch.tensor([0, 1, 0, 1])
RULES = (EWC, MAS, SI)


def make():
    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.5, -0.2], [0.1, 0.3]]))
    return network


def step(session, optimizer, targets=Y):
    with session.step(X, targets, optimizer):
        F.cross_entropy(session.network(X), targets).backward()


def consolidated(rule):
    """A session with one experience behind it, in the middle of the second."""
    session = Session(make(), rule)
    with session.experience([(X, Y)]):
        step(session, torch.optim.SGD(session.network.parameters(), lr=0.1))
    session.begin_experience()
    return session


def test_it_minimises_distance_and_penalty_together():
    torch.manual_seed(0)
    start, anchor, importance = torch.randn(3, 5, dtype=torch.float64)
    importance = importance.abs()
    found = start.clone()
    pull_to_anchors_([found], [anchor], [importance], 3.0)
    moved = found.clone().requires_grad_()
    (0.5 * (moved - start).square().sum() + quadratic_penalty([moved], [anchor], [importance], 3.0)).backward()
    torch.testing.assert_close(moved.grad, torch.zeros_like(moved), rtol=0, atol=1e-12)


def test_the_limits_are_no_pull_and_no_plasticity():
    parameter, anchor = torch.tensor([3.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])
    pull_to_anchors_([parameter], [anchor], [torch.tensor([0.0, 1e-42, 1e38])], 10.0)
    assert parameter.tolist() == [3.0, 3.0, 1.0]


@pytest.mark.parametrize("rule", RULES)
def test_a_step_is_the_optimizers_and_then_the_pull(rule):
    session = consolidated(rule(strength=4.0, pull="proximal"))
    network, held = session.network, session.rules[0].state
    anchor, importance = held["anchor"]["0.weight"].clone(), held["importance"]["0.weight"].clone()
    plain = make()
    plain.load_state_dict(network.state_dict())
    F.cross_entropy(plain(X), 1 - Y).backward()
    torch.optim.Adam(plain.parameters(), lr=0.2).step()
    step(session, torch.optim.Adam(network.parameters(), lr=0.2), 1 - Y)
    expected = (plain[0].weight + 4.0 * importance * anchor) / (1 + 4.0 * importance)
    torch.testing.assert_close(network[0].weight, expected)
    assert not torch.allclose(network[0].weight, plain[0].weight)


@pytest.mark.parametrize("rule", RULES)
def test_the_optimizer_sees_the_gradient_of_the_task_alone(rule):
    session = consolidated(rule(strength=1e6, pull="proximal"))
    with torch.no_grad():
        session.network[0].weight += 0.3
    session.network.zero_grad()
    F.cross_entropy(session.network(X), Y).backward()
    gradient = session.network[0].weight.grad.clone()
    session.before_step()
    assert torch.equal(session.network[0].weight.grad, gradient)


def test_a_strength_that_makes_gradient_descent_diverge_holds_still():
    distances = {}
    for pull in ("gradient", "proximal"):
        session = consolidated(EWC(strength=1e4, pull=pull))
        anchor = session.network[0].weight.detach().clone()
        optimizer = torch.optim.SGD(session.network.parameters(), lr=0.1)
        for _ in range(30):
            step(session, optimizer, 1 - Y)
        distances[pull] = float((session.network[0].weight.detach() - anchor).abs().max())
    assert distances["proximal"] < 1e-3
    assert not distances["gradient"] < 1e3


def test_the_path_of_si_is_along_the_optimizers_own_step():
    session = consolidated(SI(strength=50.0, pull="proximal"))
    network, held = session.network, session.rules[0].state
    before, path = network[0].weight.detach().clone(), held["path"]["0.weight"].clone()
    network.zero_grad()
    F.cross_entropy(network(X), 1 - Y).backward()
    gradient = network[0].weight.grad.clone()
    step(session, torch.optim.SGD(network.parameters(), lr=0.2), 1 - Y)
    torch.testing.assert_close(held["path"]["0.weight"], path + 0.2 * gradient**2)
    assert not torch.allclose(network[0].weight, before - 0.2 * gradient)


def test_each_form_answers_its_own_event():
    assert (EWC().overrides("gradient"), EWC().overrides("update")) == (True, False)
    rule = EWC(pull="proximal")
    assert (rule.overrides("gradient"), rule.overrides("update")) == (False, True)
    for si in (SI(), SI(pull="proximal")):
        assert (si.overrides("gradient"), si.overrides("update")) == (True, True)
    with pytest.raises(ValueError, match="pull must be one of 'gradient', 'proximal'"):
        MAS(pull="hard")


def test_the_logged_distance_is_in_units_of_importance():
    session = consolidated(EWC(strength=7.0, pull="proximal"))
    with torch.no_grad():
        session.network[0].weight += 0.5
    importance = session.rules[0].state["importance"]["0.weight"]
    assert set(session.scalars()) == {"ewc/distance"}
    torch.testing.assert_close(session.scalars()["ewc/distance"], 0.5 * 0.25 * importance.sum())

"""Continual backpropagation against its algorithm, written out step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import ContinualBackprop, Session

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
X64 = X.double()
Y = torch.tensor([0, 1, 2] * 4)


def network_of(*, bias=True):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6, bias=bias), nn.ReLU(), nn.Linear(6, 3)).double()


def run(network, rule, steps, x=X64, y=Y, lr=0.1):
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=lr)
    session.begin_experience()
    for _ in range(steps):
        with session.step(x, y, optimizer):
            F.cross_entropy(network(x), y).backward()
    return session


def test_twelve_steps_by_hand():
    rule = ContinualBackprop(rate=0.11, decay=0.8, maturity=3, gain=2.0, seed=4)
    network = network_of()
    run(network, rule, 12)

    plain = network_of()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    age, utility, due = np.zeros(6), np.zeros(6), np.float32(0.0)
    generator = torch.Generator().manual_seed(4)
    replaced = []
    for _ in range(12):
        optimizer.zero_grad()
        hidden = torch.relu(plain[0](X.double()))
        F.cross_entropy(plain[2](hidden), Y).backward()
        optimizer.step()
        age += 1
        outgoing = plain[2].weight.detach().abs().sum(0).numpy()
        utility = 0.8 * utility + 0.2 * hidden.detach().abs().mean(0).numpy() * outgoing
        eligible = np.flatnonzero(age > 3)
        due += np.float32(0.11 * len(eligible))
        while due >= 1 and len(eligible):
            due -= 1
            unit = eligible[utility[eligible].argmin()]
            eligible = eligible[eligible != unit]
            with torch.no_grad():
                drawn = torch.rand(1, 5, generator=generator, dtype=torch.float64)[0]
                plain[0].weight[unit] = (2 * drawn - 1) * 2 / 5**0.5
                plain[0].bias[unit] = 0
                plain[2].weight[:, unit] = 0
            age[unit] = utility[unit] = 0
            replaced.append(unit)
    assert len(set(replaced)) > 2
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    np.testing.assert_array_equal(rule.state["age"]["0"].numpy(), age)
    np.testing.assert_allclose(rule.state["utility"]["0"].numpy(), utility, rtol=1e-5)


def test_young_units_are_left_alone():
    network, plain = network_of(), network_of()
    run(network, ContinualBackprop(rate=1.0, maturity=5), 5)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(plain(X.double()), Y).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), plain.parameters(), strict=True))


def test_a_dead_unit_is_the_first_to_go_and_then_lives():
    network = network_of()
    with torch.no_grad():
        network[0].weight[2], network[0].bias[2] = 0.0, -1.0  # Never active.
    run(network, ContinualBackprop(rate=1 / 6, maturity=2, seed=1), 3)
    assert (torch.relu(network[0](X.double()))[:, 2] > 0).any()
    assert torch.equal(network[2].weight[:, 2], torch.zeros(3).double())


def test_units_of_convolutions_flattened_or_not():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 3)
    )
    x = torch.rand(12, 1, 4, 4)
    x = F.pad(x, (0, 0, 0, 0))
    rule = ContinualBackprop(rate=0.05, decay=0.0, maturity=0)
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    session.begin_experience()
    with session.step(x, Y, optimizer):
        F.cross_entropy(network(x), Y).backward()
    first, second = torch.relu(network[0](x)), network[:4](x)
    expected = first.abs().mean((0, 2, 3)) * network[2].weight.abs().sum((0, 2, 3))
    torch.testing.assert_close(rule.state["utility"]["0"], expected.detach())
    outgoing = network[5].weight.abs().sum(0).view(4, 4)
    expected = (second.abs().mean(0).flatten(1) * outgoing).sum(1)
    torch.testing.assert_close(rule.state["utility"]["2"], expected.detach())


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = torch.relu(self.one(x))
        return self.head(h + torch.relu(self.two(h)))


def headless(network):
    nn.init.zeros_(network.head.weight)
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    (
        (Skip(), "another way"),
        (nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)), "another way"),
        (headless(Skip()), "another way"),
        (nn.Sequential(nn.Linear(5, 3)), "no hidden layer"),
        (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3)), None),
        (nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(4, 3)), "Embedding"),
    ),
)
def test_networks_whose_units_cannot_be_replaced_unnoticed_are_refused(network, message):
    before = [p.detach().clone() for p in network.parameters()]
    if message is None:
        run(network, ContinualBackprop(), 1, x=X)
        return
    with pytest.raises(ValueError, match=message):
        run(network, ContinualBackprop(), 1, x=X)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"rate": 0.0}, "rate must be in"),
        ({"decay": 1.0}, "decay must be at least 0"),
        ({"maturity": -1}, "whole number"),
        ({"gain": 0.0}, "gain must be in"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContinualBackprop(**arguments)

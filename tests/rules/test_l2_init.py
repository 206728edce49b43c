"""Regenerative regularisation against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta import L2Init, Session


def test_on_a_quadratic_loss_it_settles_between_the_start_and_the_minimum():
    # ½ (w − 3)² + ½ s (w − 1)²: minimum at (3 + s) / (1 + s); each step shrinks the distance by 1 − lr (1 + s).
    network = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.ones_(network[0].weight)
    session, optimizer = Session(network, L2Init(strength=0.5)), torch.optim.SGD(network.parameters(), lr=0.2)
    x = torch.ones(1, 1, dtype=torch.float64)
    session.begin_experience()
    for step in range(1, 5):
        with session.step(x, None, optimizer):
            (0.5 * (network(x) - 3.0).square().sum()).backward()
        target = 3.5 / 1.5
        assert network[0].weight.item() == pytest.approx(target + (1 - target) * (1 - 0.2 * 1.5) ** step)


def test_the_start_stays_the_same_over_experiences_and_new_rows_start_where_they_are():
    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    start = network[0].weight.detach().clone()
    session, rule = Session(network, L2Init(strength=1.0)), None
    rule = session.rules[0]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x = torch.ones(3, 2)
    with session.experience([(x, None)]), session.step(x, None, optimizer):
        network(x).sum().backward()
    grown = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        grown.weight[:2] = network[0].weight
        network[0].weight.data = grown.weight.data.clone()
    session.begin_experience()
    np.testing.assert_allclose(rule.state["initial"]["0.weight"][:2].numpy(), start.numpy())
    np.testing.assert_allclose(rule.state["initial"]["0.weight"][2].numpy(), grown.weight[2].detach().numpy())


@pytest.mark.parametrize("strength", (-1.0, float("nan")))
def test_bad_hyperparameters(strength):
    with pytest.raises(ValueError, match="strength must be in"):
        L2Init(strength=strength)

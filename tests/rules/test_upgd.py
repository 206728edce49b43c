"""Utility-based perturbed gradient descent against its algorithm, written out for two parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta import UPGD, Session

X = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0]], dtype=torch.float64)
Y = torch.tensor([[1.5], [-3.0], [1.0]], dtype=torch.float64)


def two_parameters():
    network = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.4, -0.3]], dtype=torch.float64))
    return nn.Sequential(network)


def run(rule, steps, **options):
    network = two_parameters()
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.1, **options)
    session.begin_experience()
    for _ in range(steps):
        with session.step(X, None, optimizer):
            (0.5 * (network(X) - Y).square().mean()).backward()
    return network[0].weight.detach().numpy()[0]


def test_three_steps_by_hand_with_the_papers_weight_decay():
    rule = UPGD(decay=0.7, noise=0.05, seed=5)
    w, utility = np.array([0.4, -0.3]), np.zeros(2)
    generator = torch.Generator().manual_seed(5)
    for t in (1, 2, 3):
        g = ((X.numpy() @ w - Y.numpy()[:, 0])[:, None] * X.numpy()).mean(0)
        utility = 0.7 * utility - 0.3 * g * w
        corrected = utility / (1 - 0.7**t)
        xi = 0.05 * torch.randn(1, 2, generator=generator, dtype=torch.float64).numpy()[0]
        gate = 1 - 1 / (1 + np.exp(-corrected / corrected.max()))
        w = w * (1 - 0.1 * 0.2) - 2 * 0.1 * (g + xi) * gate
        assert corrected.max() > 0
    np.testing.assert_allclose(
        run(rule, 3, weight_decay=0.2), w, rtol=1e-6
    )  # The count of steps is in single precision.


def gated(rule, gradient, weight):
    parameter = nn.Parameter(torch.tensor(weight))
    network = nn.Module()
    network.linear = nn.Linear(1, 1)
    network.linear.weight, network.linear.bias = nn.Parameter(torch.tensor([weight])), None
    session = Session(network, rule)
    session.begin_experience()
    network.linear.weight.grad = torch.tensor([gradient])
    session.before_step()
    assert parameter.grad is None
    return network.linear.weight.grad[0]


def test_the_most_useful_synapse_is_protected_and_the_useless_learns_as_in_sgd():
    # Utilities −gθ: 2, 0 and −4; the largest is 2.
    found = gated(UPGD(noise=0.0), [-1.0, 1.0, 2.0], [2.0, 0.0, 2.0])
    share = lambda u: 2 / (1 + np.exp(u))  # noqa: E731
    np.testing.assert_allclose(found.numpy(), [-share(1.0), 1.0, 2.0 * share(-2.0)], rtol=1e-6)


@pytest.mark.parametrize("weight", ([0.0, 0.0], [1.0, 2.0]))
def test_where_no_utility_is_positive_all_stay_plastic(weight):
    found = gated(UPGD(noise=0.0), [1.0, 3.0], weight)
    expected = [1.0, 3.0] if weight == [0.0, 0.0] else [2.0, 6.0]  # Utility 0 is a gate of 1, below 0 a gate of 2.
    np.testing.assert_allclose(found.numpy(), expected)


def test_without_noise_nothing_random_is_drawn_and_with_it_the_seed_decides():
    quiet = UPGD(noise=0.0)
    run(quiet, 2)
    assert "generator" not in quiet.state
    one, same, other = (run(UPGD(noise=0.1, seed=seed), 2) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).all()


def test_noise_has_the_stated_size():
    network = nn.Sequential(nn.Linear(100, 100, bias=False))
    nn.init.zeros_(network[0].weight)
    session = Session(network, UPGD(noise=0.3))
    session.begin_experience()
    network[0].weight.grad = torch.zeros(100, 100)
    session.before_step()
    assert network[0].weight.grad.std().item() == pytest.approx(0.3, rel=0.03)  # Zero utility: a gate of 1.


@pytest.mark.parametrize(
    ("arguments", "message"), (({"decay": 1.0}, "decay must be"), ({"noise": -0.1}, "noise must be in"))
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        UPGD(**arguments)

"""Shrink and perturb against its equation and its stationary distribution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_meta import Session, ShrinkAndPerturb
from lit_meta.core.state import State
from lit_meta.rules._randomness import draw_normal


def run(rule, steps, width=2):
    network = nn.Sequential(nn.Linear(width, 1, bias=False)).double()
    nn.init.ones_(network[0].weight)
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.1)
    x = torch.ones(1, width, dtype=torch.float64)
    session.begin_experience()
    for _ in range(steps):
        with session.step(x, None, optimizer):
            (0.0 * network(x).sum() + network[0].weight[0, 0]).backward()
    return network[0].weight.detach()[0]


def test_three_steps_by_hand():
    generator = torch.Generator().manual_seed(5)
    expected = torch.ones(2).double()
    for _ in range(3):
        expected[0] -= 0.1
        expected = 0.9 * expected + 0.05 * torch.randn(1, 2, generator=generator, dtype=torch.float64)[0]
    torch.testing.assert_close(run(ShrinkAndPerturb(shrink=0.1, noise=0.05, seed=5), 3), expected)


def test_without_a_task_weights_have_the_variance_at_which_noise_and_shrinking_balance():
    # σ² = noise² / (1 − (1 − shrink)²)
    weights = run(ShrinkAndPerturb(shrink=0.2, noise=0.3, seed=1), 40, width=4000)[1:]
    assert weights.var().item() == pytest.approx(0.09 / (1 - 0.64), rel=0.1)
    assert abs(weights.mean().item()) < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"shrink": 1.0}, "below 1"),
        ({"noise": -1.0}, "noise must be in"),
        ({"shrink": 0.0, "noise": 0.0}, "no effect"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShrinkAndPerturb(**arguments)


def test_a_memory_from_another_kind_of_device_goes_on_with_numbers_of_its_own():
    """A GPU's generator has another state: 16 bytes."""
    like = [torch.zeros(3)]

    def drawn(saved):
        state = State()
        state.overall["generator"] = torch.tensor(saved, dtype=torch.uint8)
        return draw_normal(state, like, seed=0)[0], state.overall["generator"]

    first, after = drawn([1] * 16)
    assert torch.equal(first, drawn([1] * 16)[0])
    assert not torch.equal(first, drawn([2] * 16)[0])
    assert len(after) == len(torch.Generator().get_state())

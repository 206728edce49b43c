"""Metaplasticity from synaptic uncertainty against its equations; what it shares with BGD is tested there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta import BGD, MESU, Session
from tests.rules.test_bgd import X, gradient_by_hand, mean_loss, noise, two_parameters


def run(rule, steps):
    network = two_parameters()
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=5.0)
    session.begin_experience()
    for _ in range(steps):
        with session.step(X, None, optimizer):
            mean_loss(network).backward()
    return network[0].weight.detach().numpy()[0], rule.state["deviation"]["0.weight"].numpy()[0]


def test_two_steps_by_hand():
    rule = MESU(deviation=0.1, window=20.0, prior_mean=0.5, prior_deviation=0.3, limit=0.99, seed=4)
    mean, deviation = np.array([0.4, -0.3]), np.full(2, 0.1)
    for epsilon in noise(4, 2):
        g = gradient_by_hand(mean + deviation * epsilon)
        variance = deviation**2
        change = -variance * g + variance / (20.0 * 0.09) * (0.5 - mean)
        deviation_change = -0.5 * variance * g * epsilon + deviation / (2 * 20.0 * 0.09) * (0.09 - variance)
        assert (np.abs(change) < 0.99 * deviation).all()  # The limit has no part in this test.
        assert (np.abs(deviation_change) < 0.99 * deviation).all()
        mean, deviation = mean + change, deviation + deviation_change
    found = run(rule, 2)
    np.testing.assert_allclose(found[0], mean, rtol=1e-12)
    np.testing.assert_allclose(found[1], deviation, rtol=1e-12)


def test_without_forgetting_it_is_bgd_to_first_order():
    errors = []
    for deviation in (0.02, 0.01):
        mesu = run(MESU(deviation=deviation, window=float("inf"), limit=0.99, seed=2), 1)
        bgd = run(BGD(deviation=deviation, limit=float("inf"), seed=2), 1)
        np.testing.assert_allclose(mesu[0], bgd[0], rtol=1e-12)
        errors.append(np.abs(mesu[1] - bgd[1]).max())
    # They differ by ½ σ a², a ~ σ: halving the deviation makes that eight times smaller.
    assert errors[0] / errors[1] == pytest.approx(8.0, rel=0.2)


def test_without_data_to_learn_from_it_relaxes_to_the_prior():
    means, deviations = [torch.tensor([2.0, -1.0])], [torch.tensor([0.1, 0.5])]
    rule = MESU(prior_mean=0.5, prior_deviation=0.3, window=10.0)
    for _ in range(2000):
        rule.move(means, deviations, [torch.zeros(2)], [torch.zeros(2)])
    torch.testing.assert_close(means[0], torch.full((2,), 0.5), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(deviations[0], torch.full((2,), 0.3), rtol=1e-3, atol=1e-3)


def test_certainty_has_a_bound():
    # At curvature h the fixed point of Δσ is 1/σ² = 1/σ₀² + N h: the evidence of N steps and no more.
    h, window, prior = 3.0, 40.0, 0.3
    deviations, means = [torch.tensor([0.3], dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    rule = MESU(prior_deviation=prior, deviation=prior, window=window)
    for _ in range(4000):
        rule.move(means, deviations, [torch.zeros(1, dtype=torch.float64)], [h * deviations[0]])
    assert deviations[0].item() ** -2 == pytest.approx(prior**-2 + window * h, rel=1e-6)


def test_a_change_is_limited_in_units_of_the_deviation():
    means, deviations = [torch.zeros(3)], [torch.full((3,), 0.2)]
    huge = torch.tensor([1e9, -1e9, 0.0])
    MESU(limit=0.25, window=float("inf")).move(means, deviations, [huge.clone()], [huge.clone()])
    torch.testing.assert_close(means[0], torch.tensor([-0.05, 0.05, 0.0]))
    torch.testing.assert_close(deviations[0], torch.tensor([0.15, 0.25, 0.2]))


def test_each_layer_starts_with_the_deviation_of_its_fan_in_and_so_do_rows_that_it_gains():
    network = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    rule = MESU(deviation=2.0, scale="fan-in", prior_deviation=1.0, window=float("inf"))
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=1.0)
    session.begin_experience()
    session.before_forward(torch.ones(1, 16))
    starts = {name: deviation.unique().tolist() for name, deviation in rule.state["deviation"].items()}
    assert starts == {"0.weight": [0.5], "0.bias": [0.5], "2.weight": [1.0], "2.bias": [1.0]}
    session.leave_batch()
    with session.step(torch.ones(1, 16), None, optimizer):
        network(torch.ones(1, 16)).square().sum().backward()
    session.end_experience()
    learned = rule.state["deviation"]["2.weight"].clone()
    network[2].weight.data = torch.cat([network[2].weight.detach(), torch.zeros(1, 4)])
    network[2].bias.data = torch.zeros(3)
    session.begin_experience()
    assert torch.equal(rule.state["deviation"]["2.weight"][:2], learned)
    assert rule.state["deviation"]["2.weight"][2].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"deviation": -0.1}, "deviation must be in"),
        ({"window": 0.0}, "window must be in"),
        ({"prior_deviation": 0.0}, "prior_deviation must be in"),
        ({"limit": 1.0}, "limit must be above 0"),
        ({"scale": "fan-in"}, "give prior_deviation"),
        ({"scale": "layer"}, "scale must be one of"),
        ({"prior_mean": float("nan")}, "prior_mean must be in"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        MESU(**arguments)

"""Bayesian gradient descent against its equations, and what all Gaussian synapses share."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import BGD, EWC, MESU, SI, Session
from tests.rules import drivers

X = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0]], dtype=torch.float64)
Y = torch.tensor([[0.3], [-0.6], [0.2]], dtype=torch.float64)


def two_parameters():
    network = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.4, -0.3]], dtype=torch.float64))
    return nn.Sequential(network)


def mean_loss(network, x=X, y=Y):
    return 0.5 * (network(x) - y).square().sum() / len(x)


def noise(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 2, generator=generator, dtype=torch.float64).numpy()[0] for _ in range(count)]


def gradient_by_hand(weight, x=X, y=Y):
    """Of the summed loss."""
    return ((x.numpy() @ weight - y.numpy()[:, 0])[:, None] * x.numpy()).sum(0)


def test_two_steps_by_hand():
    network, rule = two_parameters(), BGD(deviation=0.5, rate=0.8, limit=float("inf"), seed=7)
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=123.0)
    mean, deviation = np.array([0.4, -0.3]), np.full(2, 0.5)
    session.begin_experience()
    for epsilon in noise(7, 2):
        with session.step(X, None, optimizer):
            mean_loss(network).backward()
        g = gradient_by_hand(mean + deviation * epsilon)
        e = g * epsilon
        mean = mean - 0.8 * deviation**2 * g
        deviation = deviation * np.sqrt(1 + (0.5 * deviation * e) ** 2) - 0.5 * deviation**2 * e
    np.testing.assert_allclose(network[0].weight.detach().numpy()[0], mean, rtol=1e-12)
    np.testing.assert_allclose(rule.state["deviation"]["0.weight"].numpy()[0], deviation, rtol=1e-12)


def test_accumulated_passes_are_monte_carlo_samples():
    network, rule = two_parameters(), BGD(deviation=0.5, limit=float("inf"), seed=3)
    session = Session(network, rule)
    session.begin_experience()
    for x, y in zip(X.split(1), Y.split(1), strict=True):
        session.before_forward(x)
        (mean_loss(network, x, y) / 3).backward()
        session.after_backward()
    session.before_step()
    session.after_step()
    start, g, e = np.array([0.4, -0.3]), np.zeros(2), np.zeros(2)
    for epsilon, x, y in zip(noise(3, 3), X.split(1), Y.split(1), strict=True):
        found = gradient_by_hand(start + 0.5 * epsilon, x, y)
        g += found
        e += found * epsilon
    np.testing.assert_allclose(network[0].weight.detach().numpy()[0], start - 0.25 * g, rtol=1e-12)
    deviation = 0.5 * np.sqrt(1 + (0.25 * e) ** 2) - 0.125 * e
    np.testing.assert_allclose(rule.state["deviation"]["0.weight"].numpy()[0], deviation, rtol=1e-12)


def test_it_finds_the_posterior_of_a_linear_gaussian_model():
    # One observation a step of y = w + N(0, 1): after n of them the posterior has variance 1 / (1/σ₀² + n).
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(network.weight)
    rule = BGD(deviation=1.0, limit=float("inf"), seed=1)
    session, optimizer = Session(nn.Sequential(network), rule), torch.optim.SGD(network.parameters(), lr=1.0)
    generator = torch.Generator().manual_seed(0)
    values = 2.0 + torch.randn(300, 1, generator=generator, dtype=torch.float64)
    session.begin_experience()
    for y in values:
        optimizer.zero_grad()
        for _ in range(40):
            session.before_forward(torch.ones(1, 1, dtype=torch.float64))
            (0.5 * (network(torch.ones(1, 1, dtype=torch.float64)) - y).square().sum() / 40 / 40).backward()
            session.after_backward()
        session.before_step(optimizer)
    expected = (1 / (1 + 300)) ** 0.5
    assert rule.state["deviation"]["0.weight"].item() == pytest.approx(expected, rel=0.1)
    posterior_mean = values.sum().item() / 301
    assert network.weight.item() == pytest.approx(posterior_mean, abs=0.5 * expected)


@pytest.mark.parametrize("correlation", (1e30, -1e6, 0.0))
def test_a_deviation_stays_positive_and_finite(correlation):
    deviation = torch.tensor([0.1])
    BGD(limit=float("inf")).move([torch.zeros(1)], [deviation], [torch.zeros(1)], [torch.tensor([correlation])])
    assert 0 < deviation.item() < float("inf")
    if correlation == 0.0:
        assert deviation.item() == pytest.approx(0.1)


@pytest.mark.parametrize("limit", (0.9, 0.95))
def test_both_forms_of_the_change_are_that_of_the_equation(limit):
    a = torch.cat([torch.linspace(-6, 6, 1001), torch.tensor([1e-6, -1e25, 1e25])])
    deviations = [torch.full_like(a, 2.0)]  # a = ½ σ E[g ε] = E[g ε]
    BGD(limit=limit).move([torch.zeros_like(a)], deviations, [torch.zeros_like(a)], [a.clone()])
    exact = 2.0 * torch.exp(-torch.asinh(a.double())).clamp(1 - limit, 1 + limit)
    torch.testing.assert_close(deviations[0].double(), exact, rtol=1e-5, atol=0)


def test_a_change_is_limited_in_units_of_the_deviation():
    means, deviations = [torch.zeros(3)], [torch.full((3,), 0.2)]
    huge = torch.tensor([1e9, -1e9, 0.0])
    BGD(limit=0.25).move(means, deviations, [huge.clone()], [huge.clone()])
    torch.testing.assert_close(means[0], torch.tensor([-0.05, 0.05, 0.0]))
    torch.testing.assert_close(deviations[0], torch.tensor([0.15, 0.25, 0.2]))


@pytest.mark.parametrize("rule", (BGD(deviation=0.3), MESU(deviation=0.3, window=50)), ids=("bgd", "mesu"))
class TestGaussianSynapses:
    def test_the_network_holds_the_mean_outside_a_pass(self, rule):
        rule, network = rule.clone(), two_parameters()
        mean = network[0].weight.detach().clone()
        session = Session(network, rule)
        session.begin_experience()
        session.before_forward(X)
        assert not torch.equal(network[0].weight, mean)
        mean_loss(network).backward()
        session.after_backward()
        assert torch.equal(network[0].weight, mean)
        session.before_step()
        assert network[0].weight.grad is None
        session.after_step()
        assert not torch.equal(network[0].weight, mean)

    def test_a_step_that_fails_leaves_the_mean(self, rule):
        rule, network = rule.clone(), two_parameters()
        mean = network[0].weight.detach().clone()
        session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.1)
        session.begin_experience()
        with pytest.raises(RuntimeError, match="out of luck"), session.step(X, None, optimizer):
            raise RuntimeError("out of luck")
        assert torch.equal(network[0].weight, mean)
        session.before_forward(X)  # And a batch without a backward pass, as Lightning allows.
        session.before_forward(X)
        session.close()
        assert torch.equal(network[0].weight, mean)

    def test_the_optimizer_and_global_randomness_have_no_part(self, rule):
        found = []
        for seed, lr in ((0, 0.1), (1, 10.0)):
            torch.manual_seed(seed)
            network = two_parameters()
            session = Session(network, rule.clone())
            optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=1.0)
            before = torch.get_rng_state()
            with session.experience():
                for _ in range(3):
                    with session.step(X, None, optimizer):
                        mean_loss(network).backward()
            assert torch.equal(torch.get_rng_state(), before)
            found.append(network[0].weight.detach())
        assert torch.equal(*found)

    def test_mean_and_summed_losses_agree(self, rule):
        found = []
        for reduction, factor in (("mean", 1.0), ("sum", 3.0)):
            network = two_parameters()
            arguments = {**rule.hyperparameters, "loss_reduction": reduction}
            session, optimizer = (
                Session(network, type(rule)(**arguments)),
                torch.optim.SGD(network.parameters(), lr=0.1),
            )
            session.begin_experience()
            with session.step(X, None, optimizer):
                (factor * mean_loss(network)).backward()
            found.append(network[0].weight.detach())
        torch.testing.assert_close(*found)

    def test_rows_that_a_head_gains_start_as_uncertain_as_the_rest_did(self, rule):
        rule = rule.clone()
        network = nn.Sequential(nn.Linear(2, 2).double())
        session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.1)
        with session.experience(), session.step(X, None, optimizer):
            network(X).square().mean().backward()
        learned = rule.state["deviation"]["0.weight"].clone()
        assert not torch.equal(learned, torch.full_like(learned, 0.3))
        network[0] = drivers.grown(network[0], nn.Linear(2, 3).double())
        session.begin_experience()
        grown = rule.state["deviation"]["0.weight"]
        assert torch.equal(grown[:2], learned)
        assert torch.equal(grown[2], torch.full_like(grown[2], 0.3))

    def test_a_step_without_a_sampled_pass_is_refused(self, rule):
        network = two_parameters()
        session = Session(network, rule.clone())
        session.begin_experience()
        mean_loss(network).backward()
        with pytest.raises(ValueError, match="no sampled pass"):
            session.before_step()
        with pytest.raises(ValueError, match="no before_forward"):
            session.after_backward()

    @pytest.mark.parametrize("other", (EWC(), SI(), BGD(seed=9)))
    def test_it_does_not_combine_with_rules_that_change_steps(self, rule, other):
        for rules in ([rule.clone(), other.clone()], [other.clone(), rule.clone()]):
            with pytest.raises(ValueError, match="makes the whole update"):
                Session(two_parameters(), rules)


def test_it_learns_and_grows_certain():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(200, 4)
    y = (x[:, 0] * x[:, 1] > 0).long()
    start = F.cross_entropy(network(x), y).item()
    rule = BGD(deviation=0.05)
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.0)
    with session.experience():
        for _ in range(200):
            with session.step(x, y, optimizer):
                F.cross_entropy(network(x), y).backward()
    assert F.cross_entropy(network(x), y).item() < 0.6 * start
    assert session.scalars()["bgd/mean_deviation"] < 0.05


def test_a_stream_without_boundaries_gives_the_same_weights():
    results = []
    for boundaries in (False, True):
        network = two_parameters()
        session, optimizer = Session(network, BGD(deviation=0.3)), torch.optim.SGD(network.parameters(), lr=0.0)
        session.begin_experience()
        for i in range(4):
            with session.step(X, torch.full((3,), -i) if boundaries else None, optimizer):
                mean_loss(network).backward()
            if boundaries and i < 3:
                session.end_experience()
                session.begin_experience()
        results.append(copy.deepcopy(network[0].weight.detach()))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"deviation": 0.0}, "deviation must be in"),
        ({"rate": 0.0}, "rate must be in"),
        ({"limit": 1.0}, "limit must be above 0"),
        ({"loss_reduction": "none"}, "loss_reduction must be one of"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        BGD(**arguments)

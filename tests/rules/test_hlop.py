"""HLOP: lateral neurons find the subspace of old inputs, and learning stays out of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import HLOP, Session
from lit_meta.core.rule import Layer
from lit_meta.networks import LIFMLP
from tests.rules import drivers


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learn(session, x, y, *, steps, lr=0.1):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=lr)
    with session.experience():
        for _ in range(steps):
            with session.step(x, y, optimizer):
                F.mse_loss(session.network(x), y).backward()


def linear(bias=False, inputs=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 3, bias=bias)).double()


def low_rank(rank, seed, inputs=8, samples=40):
    return drawn(samples, rank, seed=seed) @ drawn(rank, inputs, seed=seed + 1)


@pytest.mark.parametrize("bias", (False, True))
def test_old_outputs_stay_where_the_neurons_span_the_old_inputs(bias):
    network = linear(bias)
    session = Session(network, HLOP(neurons=2 + bias, iterations=20))
    x = low_rank(2, 0)
    learn(session, x, drawn(40, 3, seed=2), steps=200)
    old, before = network(x).detach().clone(), network[0].weight.detach().clone()
    learn(session, drawn(40, 8, seed=3), drawn(40, 3, seed=4), steps=50)
    assert (network[0].weight - before).abs().max() > 0.05
    torch.testing.assert_close(network(x), old, rtol=0, atol=1e-6)
    h = session.rules[0].state["subspace"]["0"]
    torch.testing.assert_close(h @ h.T, torch.eye(2 + bias, dtype=torch.float64), rtol=0, atol=1e-6)
    rows = torch.cat([torch.ones(40, 1, dtype=x.dtype), x], 1) if bias else x
    principal = torch.linalg.svd(rows).Vh[: 2 + bias]
    torch.testing.assert_close(h.T @ h, principal.T @ principal, rtol=0, atol=1e-6)


def test_steps_are_orthogonal_to_the_fixed_subspace():
    network = linear()
    session = Session(network, HLOP(neurons=2, iterations=20))
    learn(session, low_rank(2, 0), drawn(40, 3, seed=2), steps=200)
    before = network[0].weight.detach().clone()
    x, y = drawn(40, 8, seed=3), drawn(40, 3, seed=4)
    (gradient,) = torch.autograd.grad(F.mse_loss(network(x), y), network[0].weight)
    learn(session, x, y, steps=1)
    h = session.rules[0].state["subspace"]["0"]
    step = network[0].weight.detach() - before
    torch.testing.assert_close(step, -0.1 * (gradient - gradient @ h.T @ h), rtol=1e-9, atol=1e-12)
    assert (step @ h.T).abs().max() < 1e-7


def test_later_neurons_learn_what_the_earlier_ones_leave():
    session = Session(linear(), HLOP(neurons=2, neurons_added=3, iterations=20))
    first, second = low_rank(2, 0), low_rank(3, 10)
    learn(session, first, drawn(40, 3, seed=2), steps=200)
    learn(session, torch.cat([first, second]), drawn(80, 3, seed=4), steps=300)
    session.begin_experience()
    h = session.rules[0].state["subspace"]["0"]
    assert h.shape == (5, 8)
    torch.testing.assert_close(h @ h.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-4)
    for x in (first, second):
        torch.testing.assert_close(x @ h.T @ h, x, rtol=0, atol=1e-3)


def test_after_many_experiences_the_neurons_still_project():
    network = linear(bias=True, inputs=60)
    session = Session(network, HLOP(neurons=10, neurons_added=9, iterations=3))
    for experience in range(6):  # Inputs that share a mean, as those of hidden layers do.
        x = low_rank(6, experience, inputs=60, samples=64) + 3.0
        learn(session, x, drawn(64, 3, seed=9), steps=30, lr=1e-4)
    state = session.rules[0].state
    h = torch.cat([state["subspace"]["0"], state["learning"]["0"]])
    values = torch.linalg.eigvalsh(h @ h.T)
    assert len(values) == 10 + 5 * 9
    assert values.max() < 1.05, "I - HᵀH would enlarge steps"
    assert values.min() > 0.95


def test_one_hebbian_step_by_hand():
    rule = HLOP(neurons=1, iterations=1, learning_rate=0.4)
    session = Session(linear(inputs=2), rule)
    session.begin_experience()
    rule.state["learning"]["0"] = torch.tensor([[0.6, 0.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    session.before_forward(x)
    rule.layer_input(Layer("0", session.network[0]), x)
    rule.after_backward(session._all)
    # y = (0.6, 1.2); x - yH = ((0.64, 1), (1.28, 0)); mean y(x - yH) = (0.96, 0.3); mean |x|² = 3.
    expected = torch.tensor([[0.6 + 0.4 / 3 * 0.96, 0.4 / 3 * 0.3]], dtype=torch.float64)
    torch.testing.assert_close(rule.state["learning"]["0"], expected)


def test_spiking_lateral_neurons_come_close_to_the_linear_ones():
    x = low_rank(2, 0)
    weights = {}
    for levels in (None, 40, 4000):
        session = Session(linear(), HLOP(neurons=2, iterations=20, spike_levels=levels))
        learn(session, x, drawn(40, 3, seed=2), steps=100)
        h = session.rules[0].state["learning"]["0"]
        weights[levels] = h.T @ h
    coarse, fine = ((weights[n] - weights[None]).norm() for n in (40, 4000))
    assert 0 < fine < 1e-2
    assert fine < coarse < 0.3


def test_it_serves_a_spiking_network():
    network = LIFMLP(8, [12], 3, steps=4, weight_gain=3.0, seed=0)
    rule = HLOP(neurons=3, neurons_added=2)
    session = Session(network, rule)
    x, y = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    torch.manual_seed(0)
    for _ in range(2):
        with session.experience():
            for _ in range(10):
                with session.step(x, y, optimizer):
                    F.cross_entropy(network(x), y).backward()
    assert rule.state["subspace"]["layers.0"].shape == (3, 8)
    h = rule.state["subspace"]["layers.1"]
    assert h.shape == (3, 12)
    assert torch.isfinite(h).all()
    before = network.layers[1].weight.detach().clone()
    session.begin_experience()
    h = rule.state["subspace"]["layers.1"]
    with session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    step = network.layers[1].weight.detach() - before
    raw = -0.5 * network.layers[1].weight.grad
    torch.testing.assert_close(step, raw - raw @ h.T @ h, rtol=1e-4, atol=1e-6)


def test_a_layer_never_has_more_neurons_than_inputs():
    session = Session(linear(inputs=3), HLOP(neurons=2, neurons_added=2))
    for seed in range(3):
        learn(session, drawn(10, 3, seed=seed), drawn(10, 3, seed=9), steps=2)
    session.begin_experience()
    assert session.rules[0].state["subspace"]["0"].shape == (3, 3)
    assert session.rules[0].state["learning"]["0"].shape == (0, 3)


def test_without_added_neurons_later_experiences_teach_no_subspace():
    session = Session(linear(), HLOP(neurons=2, neurons_added=0))
    for seed in range(2):
        learn(session, drawn(10, 8, seed=seed), drawn(10, 3, seed=9), steps=2)
    assert session.rules[0].state["subspace"]["0"].shape == (2, 8)
    assert len(session.rules[0].state["learning"]["0"]) == 0


def test_a_layer_that_gains_inputs_keeps_its_neurons():
    network = linear()
    rule = HLOP(neurons=2)
    session = Session(network, rule)
    learn(session, low_rank(2, 0), drawn(40, 3, seed=2), steps=2)
    old = rule.state["learning"]["0"].clone()
    network[0] = drivers.grown(network[0], nn.Linear(9, 3, bias=False).double())
    session.begin_experience()
    assert torch.equal(rule.state["subspace"]["0"][:, :8], old)
    assert (rule.state["subspace"]["0"][:, 8] == 0).all()
    session.close()
    network[0] = nn.Linear(7, 3, bias=False).double()
    with pytest.raises(ValueError, match="cannot lose inputs"):
        session.begin_experience()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"neurons": 0}, "neurons must be"),
        ({"neurons_added": -1}, "neurons_added must be"),
        ({"iterations": 1.5}, "iterations must be"),
        ({"spike_levels": 0}, "spike_levels must be"),
        ({"learning_rate": 1.5}, "learning_rate must be in"),
        ({"spike_levels": 4, "spike_range": 0.0}, "spike_range must be in"),
        ({"spike_range": 3.0}, "no effect without spikes"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        HLOP(**arguments)


def test_a_stream_of_permutations_is_kept():
    """The twin of the permuted MNIST experiment that runs in tests."""
    from tests.rules.test_owm import permuted_digits

    past, average = permuted_digits(HLOP(neurons=25, neurons_added=8, iterations=3))
    naive_past, naive = permuted_digits(None)
    assert past > naive_past + 0.15
    assert average > naive + 0.1


def test_spiking_lateral_neurons_never_amplify_a_step():
    """Rounded answers leave overlaps, which made the largest eigenvalue of the connections exceed 2 after a few experiences."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 3))
    session = Session(network, HLOP(neurons=3, neurons_added=3, spike_levels=2, spike_range=4.0, learning_rate=1.0))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(4):
        x, y = torch.randn(40, 12, generator=generator) * 2, torch.randint(3, (40,), generator=generator)
        with session.experience([(x, y)]):
            for inputs, targets in zip(x.split(8), y.split(8), strict=True):
                with session.step(inputs, targets, optimizer):
                    F.cross_entropy(network(inputs), targets).backward()
    rows = session.rules[0].state["subspace"]["0"]
    assert rows.shape == (9, 13)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(9), atol=1e-5, rtol=0)

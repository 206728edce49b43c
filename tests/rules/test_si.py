"""Synaptic intelligence against its equations, written out for two parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, SI, UPGD, Session

X = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0], [1.5, 1.0]], dtype=torch.float64)
Y = X @ torch.tensor([[0.7], [-0.4]], dtype=torch.float64) + 0.1


def two_parameters(start=(0.0, 0.2)):
    network = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([start], dtype=torch.float64))
    return nn.Sequential(network)


def learn(session, steps, lr=0.1, x=X, y=Y):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=lr)
    with session.experience():
        for _ in range(steps):
            with session.step(x, None, optimizer):
                (0.5 * (session.network(x) - y).square().mean()).backward()


def gradient_by_hand(w, x, y):
    x, y = x.numpy(), y.numpy()[:, 0]
    return ((x @ w - y)[:, None] * x).mean(0)


def test_two_experiences_by_hand():
    rule = SI(strength=0.6, damping=0.05)
    network = two_parameters()
    session = Session(network, rule)
    learn(session, 3)
    learn(session, 2, x=X[:2], y=-Y[:2])

    w = np.array([0.0, 0.2])
    path, start = np.zeros(2), w.copy()
    for _ in range(3):
        g = gradient_by_hand(w, X, Y)
        w = w - 0.1 * g
        path += 0.1 * g * g
    omega = path / ((w - start) ** 2 + 0.05)
    anchor, path, start = w.copy(), np.zeros(2), w.copy()
    for _ in range(2):
        g = gradient_by_hand(w, X[:2], -Y[:2])
        step = -0.1 * (g + 0.6 * omega * (w - anchor))
        path -= g * step  # The task's gradient, but the whole step.
        w = w + step
    omega = np.maximum(0.0, omega + path / ((w - start) ** 2 + 0.05))
    np.testing.assert_allclose(network[0].weight.detach().numpy()[0], w, rtol=1e-12)
    np.testing.assert_allclose(rule.state["importance"]["0.weight"].numpy()[0], omega, rtol=1e-12)
    np.testing.assert_allclose(rule.state["anchor"]["0.weight"].numpy()[0], w, rtol=1e-12)


def test_paths_add_up_to_the_fall_of_the_loss():
    network, rule = two_parameters(), SI()
    loss = lambda: 0.5 * (network(X) - Y).square().mean()  # noqa: E731
    before = loss().item()
    learn(Session(network, rule), 400, lr=1e-3)
    # In the limit of small steps the integral of −g·dθ is exactly what the loss fell by.
    assert rule.state["path"]["0.weight"].sum().item() == pytest.approx(before - loss().item(), rel=1e-3)


def test_importance_is_the_curvature_of_a_quadratic_loss_learned_to_its_end():
    curvature = torch.tensor([4.0, 0.25], dtype=torch.float64)
    x = torch.diag((2 * curvature).sqrt())
    y = x @ torch.ones(2, 1, dtype=torch.float64)
    network, rule = two_parameters(start=(0.0, 0.0)), SI(damping=1e-12)
    learn(Session(network, rule), 20000, lr=2e-3, x=x, y=y)
    # Zenke et al., section 4: ω/Δ² = ½·h for the loss ½·h·(θ − 1)².
    torch.testing.assert_close(rule.state["importance"]["0.weight"][0], 0.5 * curvature, rtol=5e-3, atol=0.0)


def test_the_path_leaves_out_the_penalties_of_all_rules():
    rule, other = SI(strength=5.0), EWC(strength=50.0, loss="mse", labels="exact")
    network = two_parameters()
    session = Session(network, [rule, other])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for x, y in ((X[:2], Y[:2]), (X[2:], -Y[2:])):
        with session.experience([(x, y)]):
            for _ in range(2):
                before = network[0].weight.detach().clone()
                path = rule.state["path"]["0.weight"].clone()
                task = torch.autograd.grad(0.5 * (network(x) - y).square().mean(), network[0].weight)[0]
                with session.step(x, y, optimizer):
                    (0.5 * (network(x) - y).square().mean()).backward()
                expected = path - task * (network[0].weight.detach() - before)
                torch.testing.assert_close(rule.state["path"]["0.weight"], expected)


def test_importance_never_falls_below_zero():
    rule, network = SI(), two_parameters()
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, maximize=True)  # Ascent: every step raises the loss.
    with session.experience(), session.step(X, None, optimizer):
        (0.5 * (network(X) - Y).square().mean()).backward()
    assert (rule.state["path"]["0.weight"] < 0).all()
    assert (rule.state["importance"]["0.weight"] == 0).all()


def test_decay_fades_earlier_experiences():
    rules = [SI(strength=0.0, decay=decay) for decay in (1.0, 0.25)]
    for rule in rules:
        session = Session(two_parameters(), rule)
        learn(session, 2)
        rule.first = rule.state["importance"]["0.weight"].clone()
        learn(session, 2, x=X[:2], y=-Y[:2])
    whole, faded = (rule.state["importance"]["0.weight"] for rule in rules)
    torch.testing.assert_close(whole - faded, 0.75 * rules[0].first)


def test_a_rule_that_changes_gradients_must_come_after():
    Session(two_parameters(), [SI(), EWC()])
    for other in (EWC(), UPGD()):
        with pytest.raises(ValueError, match=f"put SI before {type(other).__name__}"):
            Session(two_parameters(), [other, SI()])


def test_adam_steps_are_integrated_as_they_are():
    network, rule = two_parameters(), SI()
    session = Session(network, rule)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    start = network[0].weight.detach().clone()
    with session.experience(), session.step(X, None, optimizer):
        loss = F.mse_loss(network(X), Y)
        gradient = torch.autograd.grad(loss, network[0].weight, retain_graph=True)[0]
        loss.backward()
    torch.testing.assert_close(rule.state["path"]["0.weight"], -gradient * (network[0].weight.detach() - start))


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"strength": -1.0}, "strength must be in"),
        ({"damping": 0.0}, "damping must be in"),
        ({"decay": 1.5}, "decay must be in"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        SI(**arguments)

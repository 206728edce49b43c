"""Memory aware synapses against closed forms and loops over samples."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import MAS, Session
from lit_meta.functional import output_sensitivity

X = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0], [1.5, 1.0], [-2.0, 0.1]], dtype=torch.float64)


@pytest.fixture
def line():
    network = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -0.2], [0.1, 0.3]]))
    return nn.Sequential(network)


def sensitivity_by_hand(weight, x):
    """For f = Wx: ∂‖f‖²/∂W = 2 f xᵀ, sample by sample."""
    return torch.stack([2 * torch.outer(weight @ v, v).abs() for v in x]).mean(0)


def one_experience(session, x, parts=2, lr=0.0):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=lr)
    with session.experience([(part, None) for part in x.chunk(parts)]), session.step(x, None, optimizer):
        session.network(x).square().mean().backward()


@pytest.mark.parametrize("parts", (1, 2, 5))
def test_importance_is_the_per_sample_sensitivity_whatever_the_batches(line, parts):
    rule = MAS()
    one_experience(Session(line, rule), X, parts)
    torch.testing.assert_close(rule.state["importance"]["0.weight"], sensitivity_by_hand(line[0].weight.detach(), X))


@pytest.mark.parametrize("kind", ("mlp", "convolution"))
def test_equals_a_loop_over_samples(kind):
    torch.manual_seed(0)
    if kind == "mlp":
        network, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(7, 4)
    else:
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        x = torch.randn(7, 1, 4, 4)
    network, x = network.double(), x.double()
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for sample in x.split(1):
        gradients = torch.autograd.grad(network(sample).square().sum(), list(network.parameters()))
        for total, gradient in zip(expected.values(), gradients, strict=True):
            total += gradient.abs() / len(x)
    for chunk_size in (None, 2):
        found = output_sensitivity(network, x, chunk_size=chunk_size)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


def test_the_second_experience_adds_and_anchors_anew(line):
    rule = MAS(strength=3.0, decay=0.5)
    session = Session(line, rule)
    one_experience(session, X[:3])
    first = rule.state["importance"]["0.weight"].clone()
    one_experience(session, X[3:], lr=0.1)
    new = sensitivity_by_hand(line[0].weight.detach(), X[3:])
    torch.testing.assert_close(rule.state["importance"]["0.weight"], 0.5 * first + new)
    torch.testing.assert_close(rule.state["anchor"]["0.weight"], line[0].weight.detach())
    with torch.no_grad():
        line[0].weight += 0.1
    session.begin_experience()
    line[0].weight.grad = torch.ones_like(line[0].weight)
    session.before_step()
    torch.testing.assert_close(line[0].weight.grad, 1.0 + 0.3 * (0.5 * first + new))


def stream(rule, network, labels, boundaries):
    """Six batches of a stream; where it announces boundaries, three experiences of two."""
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for i in range(6):
        if i == 0 or (boundaries and i % 2 == 0):
            session.begin_experience()
        x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        with session.step(x, labels(i), optimizer):
            F.mse_loss(network(x), torch.full((5, 2), 0.3 * i, dtype=torch.float64)).backward()
        if boundaries and i % 2 == 1:
            session.end_experience()
    return network[0].weight.detach()


def test_streamed_it_needs_neither_boundaries_nor_labels(line):
    rule = MAS(interval=2, strength=0.5)
    assert not rule.needs_boundaries
    assert not rule.needs_labels
    found = stream(rule, line, lambda i: None, boundaries=False)
    line.load_state_dict({"0.weight": torch.tensor([[0.5, -0.2], [0.1, 0.3]], dtype=torch.float64)})
    poisoned = stream(rule.clone(), line, lambda i: torch.full((5,), 10**9 - i), boundaries=True)
    assert torch.equal(found, poisoned)


def test_streamed_penalties_are_merged_exactly(line):
    rule = MAS(interval=1, strength=0.0)
    session = Session(line, rule)
    optimizer = torch.optim.SGD(line.parameters(), lr=0.3)
    points = []
    session.begin_experience()
    for x in X.split(1):
        points.append((sensitivity_by_hand(line[0].weight.detach(), x), line[0].weight.detach().clone()))
        with session.step(x, None, optimizer):
            (line(x) - 1.0).square().sum().backward()
    theta = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    expected = sum(omega * (theta - anchor) for omega, anchor in points)
    merged = rule.state["importance"]["0.weight"] * (theta - rule.state["anchor"]["0.weight"])
    torch.testing.assert_close(merged, expected)


def test_measuring_leaves_gradients_and_statistics_alone():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    mean = network[1].running_mean.clone()
    session = Session(network, MAS(interval=1))
    session.begin_experience()
    session.before_forward(X)
    assert torch.equal(network[1].running_mean, mean)
    assert network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"strength": -1.0}, "strength must be in"),
        ({"decay": -0.1}, "decay must be in"),
        ({"samples": 0}, "samples must be"),
        ({"interval": 0}, "interval must be"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        MAS(**arguments)


def test_without_data_it_says_so(line):
    session = Session(line, MAS())
    optimizer = torch.optim.SGD(line.parameters(), lr=0.1)
    session.begin_experience()
    with session.step(X, None, optimizer):
        line(X).sum().backward()
    with pytest.raises(ValueError, match="there is none"):
        session.end_experience([])

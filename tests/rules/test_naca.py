"""NACA against its equations, written out in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import NACA, Session
from lit_meta.core.errors import DivergedError
from lit_meta.core.rule import Layer
from lit_meta.networks import MLP


def logistic(a):
    return 1 / (1 + np.exp(-a))


def modulation(level, inversion=0.5, maximum=1.2):
    """M(λ), by its two branches below the inversion and by its odd symmetry above it."""
    if level > inversion:
        return -modulation(2 * inversion - level, inversion, maximum)
    if level <= inversion / 2:
        return maximum - (maximum - 1) * (4 * level - inversion) ** 2 / inversion**2
    return 4 * (level - inversion) ** 2 / inversion**2


def code(label, classes):
    index = int(np.floor(2 * (classes - 1) * np.sqrt(np.log(classes / (label + 1)) / np.log(classes))))
    e = np.zeros(2 * classes)
    e[index] += 0.5
    e[index + 1] += 0.5
    return e


def sigmoid_network(*sizes):
    layers = []
    for m, n in itertools.pairwise(sizes):
        layers += [nn.Linear(m, n, bias=False), nn.Sigmoid()]
    return nn.Sequential(*layers)


def one_step(network, rule, x, y, lr=0.1):
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    session.begin_experience()
    with session.step(x, y, optimizer):
        (0.5 * (network(x) - F.one_hot(y, 4)).square().sum()).backward()
    return session


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 5, generator=generator), torch.tensor([0, 1, 2, 3, 3, 1])


def test_one_step_is_the_published_update_in_every_layer(batch):
    x, y = batch
    torch.manual_seed(0)
    network = sigmoid_network(5, 7, 6, 4)
    before = [m.weight.detach().double().numpy().copy() for m in network if isinstance(m, nn.Linear)]
    rule = NACA(reduction="sum")
    session = one_step(network, rule, x, y)
    after = [m.weight.detach().double().numpy() for m in network if isinstance(m, nn.Linear)]
    signal = x.double().numpy()
    codes = np.stack([code(int(label), 4) for label in y])
    for position, name in ((0, "0"), (1, "2")):
        out = logistic(signal @ before[position].T)
        levels = codes @ session.rules[0].state["projection"][name].double().numpy()
        m = np.vectorize(modulation)(levels)
        expected = before[position] - 0.1 * (m * out * (1 - out)).T @ signal
        np.testing.assert_allclose(after[position], expected, rtol=1e-5, atol=1e-7)
        signal = out
    out = logistic(signal @ before[2].T)
    error = (out - np.eye(4)[y.numpy()]) * out * (1 - out)
    np.testing.assert_allclose(after[2], before[2] - 0.1 * error.T @ signal, rtol=1e-5, atol=1e-7)


def test_mean_reduction_divides_hidden_errors_by_the_batch():
    layer, output = Layer("0", nn.Linear(5, 7)), torch.zeros(6, 7)
    errors = []
    for reduction in ("sum", "mean"):
        rule = NACA(classes=4, reduction=reduction)
        rule._width = 4
        errors.append(rule.local_error(layer, output, torch.tensor([0, 1, 2, 3, 3, 1])))
    torch.testing.assert_close(errors[0] / 6, errors[1])


def test_no_gradient_with_respect_to_a_hidden_input_is_computed(batch):
    x, y = batch
    network = sigmoid_network(5, 7, 6, 4)
    seen = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.view_as(tensor)

        @staticmethod
        def backward(ctx, gradient):
            seen.append(gradient.shape)
            return gradient

    class Between(nn.Module):
        def forward(self, tensor):
            return Spy.apply(tensor)

    spied = nn.Sequential(
        *[part for module in network for part in ((Between(), module) if isinstance(module, nn.Linear) else (module,))]
    )
    session = Session(spied, NACA())
    session.begin_experience()
    session.before_forward(x, y)
    F.mse_loss(spied(x), F.one_hot(y, 4).float()).backward()
    assert seen == []  # The loss stops at the head's input.
    session.after_backward()
    # Each hidden block's error enters at its own output and goes no further down.
    assert seen == [(6, 7), (6, 6)]


def test_convolutions_normalisation_and_residual_sums(batch):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(1, 4, 3, padding=1, groups=1, stride=2)
            self.norm = nn.BatchNorm2d(4)
            self.two = nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.short = nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4 * 4 * 4, 4)

        def forward(self, x):
            h = torch.tanh(self.norm(self.one(x)))
            h = torch.tanh(self.two(h) + self.short(h) + h)
            return self.head(h.flatten(1))

    torch.manual_seed(0)
    network = Residual()
    x, y = torch.rand(6, 1, 8, 8), batch[1]
    session = Session(network, NACA(reduction="sum"))
    session.begin_experience()
    session.before_forward(x, y)
    F.cross_entropy(network(x), y).backward()
    session.after_backward()
    session.before_step()
    found = {name: p.grad.clone() for name, p in network.named_parameters()}

    # By hand: the first block learns from its own output alone, both branches of the second from the joint output.
    rule = session.rules[0]
    h = torch.tanh(network.norm(network.one(x)))
    error = rule.local_error(Layer("one", network.one), h.detach(), y)
    first = torch.autograd.grad(h, [network.one.weight, network.norm.bias], error)
    torch.testing.assert_close(found["one.weight"], first[0])
    torch.testing.assert_close(found["norm.bias"], first[1])
    h = h.detach()
    joint = torch.tanh(network.two(h) + network.short(h) + h).flatten(1)
    error = rule.local_error(Layer("short", network.short), joint.detach(), y)
    second = torch.autograd.grad(joint, [network.two.weight, network.short.weight], error)
    torch.testing.assert_close(found["two.weight"], second[0])
    torch.testing.assert_close(found["short.weight"], second[1])
    network.zero_grad()
    F.cross_entropy(network.head(joint.detach()), y).backward()
    torch.testing.assert_close(found["head.weight"], network.head.weight.grad)


def test_accumulated_gradients_are_those_of_the_whole_batch(batch):
    x, y = batch
    gradients = []
    for parts in (1, 2):
        torch.manual_seed(0)
        network = sigmoid_network(5, 7, 4)
        session = Session(network, NACA())
        session.begin_experience()
        for inputs, targets in zip(x.chunk(parts), y.chunk(parts), strict=True):
            session.before_forward(inputs, targets)
            (F.mse_loss(network(inputs), F.one_hot(targets, 4).float()) / parts).backward()
            session.after_backward(loss_divisor=parts)
        session.before_step()
        gradients.append([p.grad for p in network.parameters()])
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, accumulated)


def test_strength_zero_leaves_hidden_weights_alone(batch):
    network = sigmoid_network(5, 7, 4)
    hidden, head = network[0].weight.detach().clone(), network[2].weight.detach().clone()
    one_step(network, NACA(strength=0.0), *batch)
    assert torch.equal(network[0].weight, hidden)
    assert not torch.equal(network[2].weight, head)


def test_evaluation_and_training_without_the_rule_are_untouched(batch):
    x, y = batch
    network = sigmoid_network(5, 7, 4)
    session = one_step(network, NACA(), x, y)
    F.mse_loss(network(x), F.one_hot(y, 4).float()).backward()  # Outside a step the chain is whole.
    assert network[0].weight.grad.abs().sum() > 0
    session.close()
    assert not network[0]._forward_pre_hooks


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.one(self.one(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.cell(x))


@pytest.mark.parametrize(
    ("network", "rule", "targets", "error", "message"),
    (
        (sigmoid_network(5, 7, 4), NACA(), torch.tensor([0, 1, 2, 3, 4, 1]), ValueError, "label 4"),
        (sigmoid_network(5, 7, 4), NACA(), torch.full((6,), 0.5), TypeError, "soft labels"),
        (Shared(), NACA(), None, ValueError, "'one' was used twice"),
        (Recurrent(), NACA(), None, ValueError, "'cell'"),
        (nn.Sequential(nn.Flatten()), NACA(), None, ValueError, "no weight layer"),
    ),
)
def test_what_cannot_be_learned_is_refused(batch, network, rule, targets, error, message):
    x, y = batch
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(error, match=message):
        one_step(network, rule, x, y if targets is None else targets)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_a_local_error_that_is_not_finite_stops_before_the_weights(batch):
    network = sigmoid_network(5, 7, 4)
    before = [p.detach().clone() for p in network.parameters()]
    rule = NACA()
    one_step(network, rule, *batch, lr=0.0)
    rule.state["projection"]["0"][0] = float("nan")
    rule._tables.clear()
    with pytest.raises(DivergedError, match="not finite"):
        one_step(network, rule, *batch)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_a_network_compiled_before_the_rule_came_is_refused_not_ignored(batch):
    network = sigmoid_network(5, 7, 4)

    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x):  # What a compiled graph does: it uses the weights without calling the modules.
            return torch.sigmoid(torch.sigmoid(x @ network[0].weight.T) @ network[2].weight.T)

    with pytest.raises(ValueError, match="attach the rule first"):
        one_step(Opaque(), NACA(), *batch)


def test_closed_units_that_are_left_out_learn_nothing_and_open_ones_the_same():
    x, y = torch.rand(1, 12).expand(6, 12), torch.tensor([0, 1, 2, 3, 3, 1])
    weights = []
    for skip in (False, True):
        network = MLP(12, [30, 20], 4, gate="top_k", gate_active_units=3, skip_closed=skip, seed=0)
        one_step(network, NACA(reduction="sum"), x, y)
        weights.append([p.detach().clone() for p in network.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(other, one)

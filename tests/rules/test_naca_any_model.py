"""NACA on networks of every kind, against a reference that learns block by block."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import NACA, Session
from tests.rules.test_naca import code, modulation

CLASSES = 4
Y = torch.tensor([0, 1, 2, 3, 3, 1])


def conv1d():
    return [
        nn.Sequential(nn.Conv1d(2, 6, 3, stride=2, padding=1), nn.Tanh()),
        nn.Sequential(nn.Conv1d(6, 8, 3, groups=2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()),
        nn.Linear(8, CLASSES),
    ], (2, 8)


def conv2d():
    return [
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), nn.Sigmoid(), nn.Flatten()),
        nn.Sequential(nn.Linear(32, 7), nn.Sigmoid()),
        nn.Linear(7, CLASSES),
    ], (1, 8, 8)


def batch_norm():
    return [
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        nn.Sequential(nn.Linear(36, 9), nn.BatchNorm1d(9), nn.PReLU()),
        nn.Sequential(nn.Linear(9, CLASSES), nn.Sigmoid()),
    ], (1, 8, 8)


def normalised_input():
    return [
        nn.Sequential(nn.LayerNorm(5)),
        nn.Sequential(nn.Linear(5, 7), nn.GroupNorm(1, 7), nn.Tanh()),
        nn.Linear(7, CLASSES),
    ], (5,)


def smooth():
    return [
        nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()
        ),
        nn.Sequential(nn.Linear(4, 9), nn.Sigmoid()),
        nn.Linear(9, CLASSES),
    ], (1, 8, 8)


def dropout():
    return [
        nn.Sequential(nn.Linear(5, 16), nn.Sigmoid(), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(16, 7), nn.Sigmoid(), nn.Dropout(0.2)),
        nn.Linear(7, CLASSES),
    ], (5,)


def transposed():
    return [
        nn.Sequential(nn.ConvTranspose1d(2, 3, 3, stride=2), nn.Tanh(), nn.Flatten()),
        nn.Linear(51, CLASSES),
    ], (2, 8)


KINDS = {f.__name__: f for f in (conv1d, conv2d, batch_norm, normalised_input, smooth, dropout, transposed)}


def make(kind):
    torch.manual_seed(0)
    blocks, shape = KINDS[kind]()
    return nn.Sequential(*blocks), torch.randn(6, *shape)


def errors_of(projection, y, output, divisor=1.0):
    """The local error of a block, from the published curve and code in float64."""
    levels = np.stack([code(int(label), CLASSES) for label in y]) @ projection.double().numpy()
    error = torch.from_numpy(np.vectorize(modulation)(levels)) / divisor
    return error.view(*error.shape, *(1,) * (output.dim() - 2)).expand_as(output)


def reference(network, projections, x, y, seed):
    """Gradients of every parameter: each block alone on a detached input, the head by the loss."""
    network = copy.deepcopy(network).double()
    torch.manual_seed(seed)
    x, names, gradients = x.double(), list(projections), {}
    for i, block in enumerate(network):
        own = {f"{i}.{n}" if n else str(i): p for n, p in block.named_parameters()}
        output = block(x)
        if i < len(network) - 1:
            error = errors_of(projections[names[i]], y, output)
            found = torch.autograd.grad(output, list(own.values()), error)
        else:
            found = torch.autograd.grad(F.cross_entropy(output, y, reduction="sum"), list(own.values()))
        gradients |= dict(zip(own, found, strict=True))
        x = output.detach()
    return gradients


def learned(network, rule, x, y, seed=5, run=None, loss_divisor=1.0):
    """Gradients by name after one training step's backward pass under the rule."""
    session = Session(network, rule)
    session.begin_experience()
    session.before_forward(x, y)
    torch.manual_seed(seed)
    (F.cross_entropy((run or network)(x), y, reduction="sum") / loss_divisor).backward()
    session.after_backward(loss_divisor=loss_divisor)
    session.before_step()
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_learns_as_the_equations_say(kind):
    network, x = make(kind)
    kept = copy.deepcopy(network)
    rule = NACA(reduction="sum")
    found = learned(network.double(), rule, x.double(), Y)
    expected = reference(kept, rule.state["projection"], x, Y, seed=5)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ("smooth", "dropout"))
def test_bfloat16_is_the_single_precision_result_within_its_digits(kind):
    network, x = make(kind)
    single = learned(copy.deepcopy(network), NACA(), x, Y)

    def run(inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(inputs).float()

    half = learned(network, NACA(), x, Y, run=run)
    for name, gradient in half.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, single[name], rtol=0.05, atol=0.03 * float(single[name].abs().max()))


def scaled_step(network, rule, x, y, *, scale, dtype):
    """One step as a host with loss scaling makes it; returns how far every weight moved."""
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=dtype == torch.float16)
    session.begin_experience()
    session.before_forward(x, y)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(network(x).float(), y)
    scaler.scale(loss).backward()
    session.after_backward()
    scaler.unscale_(optimizer)
    session.before_step(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return {n: p.detach() - before[n] for n, p in network.named_parameters()}


def test_float16_with_a_scaled_loss_is_the_single_precision_result_within_its_digits():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, CLASSES))
    x = torch.rand(6, 5)
    single = scaled_step(copy.deepcopy(network), NACA(), x, Y, scale=1.0, dtype=torch.float32)
    for scale in (1.0, 2.0**12):
        half = scaled_step(copy.deepcopy(network), NACA(), x, Y, scale=scale, dtype=torch.float16)
        for name, change in half.items():
            torch.testing.assert_close(change, single[name], rtol=5e-3, atol=3e-3 * float(single[name].abs().max()))


def test_float16_keeps_errors_that_a_large_batch_makes_small():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, CLASSES))
    x, y = torch.rand(8, 5), torch.arange(8) % CLASSES
    # Divided by 2²⁴ an error is below the least number of half precision.
    tiny = NACA(strength=2.0**-24)
    half = copy.deepcopy(network)
    session = Session(half, tiny)
    session.begin_experience()
    session.before_forward(x, y)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = F.cross_entropy(half(x).float(), y)
    loss.backward()
    session.after_backward()
    session.before_step()
    expected = learned(copy.deepcopy(network), tiny.clone(), x, y)["0.weight"]
    torch.testing.assert_close(half[0].weight.grad, expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))


def test_float16_that_overflows_stops_before_the_weights():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, CLASSES))
    before = [p.detach().clone() for p in network.parameters()]
    session = Session(network, NACA(reduction="sum", strength=1e6))
    session.begin_experience()
    x = torch.full((6, 5), 3e4)
    with torch.no_grad():
        network[0].weight.fill_(0.1)
        before[0].fill_(0.1)
    session.before_forward(x, torch.zeros_like(Y))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = network(x).float().mean()
    loss.backward()
    with pytest.raises(ValueError, match="overflows half precision"):
        session.after_backward()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_a_penalty_in_the_loss_counts_beside_the_local_error():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, CLASSES))
    x = torch.rand(6, 5)
    without = learned(copy.deepcopy(network), NACA(), x, Y)
    session = Session(network, NACA())
    session.begin_experience()
    session.before_forward(x, Y)
    loss = F.cross_entropy(network(x), Y, reduction="sum") + 0.5 * network[0].weight.square().sum()
    loss.backward()
    session.after_backward()
    session.before_step()
    torch.testing.assert_close(network[0].weight.grad, without["0.weight"] + network[0].weight.detach())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Functional(nn.Module):
    """Uses the weights of a layer without calling it."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.one(x))
        return self.head(torch.tanh(F.linear(h, self.two.weight)))


class PastTheHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, CLASSES), nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.one(x))
        return self.head(h) + h


@pytest.mark.parametrize(
    ("network", "message"),
    (
        (Tied, "'one' and 'two' share a parameter"),
        (Functional, r"parameter of shape \(5, 5\) without calling the layer"),
        (PastTheHead, "skip connection past the head"),
    ),
)
def test_what_no_block_can_own_is_refused(network, message):
    network = network()
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(ValueError, match=message):
        learned(network, NACA(), torch.rand(6, 5), Y)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_too_many_classes_for_the_published_code():
    network = nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 400))
    with pytest.raises(ValueError, match="same expectation code"):
        Session(network, NACA()).begin_experience()
    Session(network, NACA(code="disjoint")).begin_experience()


def test_a_frozen_head_is_refused_in_the_forward_pass_rather_than_by_autograd():
    network = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 4)).requires_grad_(True)
    network[2].requires_grad_(False)
    session = Session(network, NACA())
    session.begin_experience()
    session.before_forward(torch.ones(2, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"no parameter from layer '2' on trains: unfreeze the head"):
        network(torch.ones(2, 8))
    session.abandon_step()
    with torch.no_grad():
        network(torch.ones(2, 8))  # Nothing is asked of an evaluation.


def test_a_frozen_hidden_layer_is_no_reason_to_refuse():
    network = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 4))
    network[0].requires_grad_(False)
    session = Session(network, NACA())
    session.begin_experience()
    session.before_forward(torch.ones(2, 8), torch.tensor([0, 1]))
    nn.functional.cross_entropy(network(torch.ones(2, 8)), torch.tensor([0, 1])).backward()
    session.after_backward()
    session.before_step()
    assert float(network[2].weight.grad.abs().sum()) > 0

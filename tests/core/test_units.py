"""Units are found by the kind of layer: features are the last dimension, channels come before positions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import NACA, Session
from lit_meta.core.layers import Layer, units
from lit_meta.networks.selective import SelectiveLinear
from lit_meta.rules import XdG

B, T, FEATURES, HIDDEN, CLASSES = 4, 7, 5, 6, 3
Y = torch.tensor([0, 2, 1, 2])


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    ("module", "shape", "dimension"),
    (
        (nn.Linear(2, 3), (4, 3), 1),
        (nn.Linear(2, 3), (4, 7, 3), 2),
        (nn.Linear(2, 3), (4, 7, 7, 3), 3),
        (nn.Embedding(9, 3), (4, 7, 3), 2),
        (nn.Conv1d(2, 3, 1), (4, 3, 7), 1),
        (nn.Conv2d(2, 3, 1), (4, 3, 7, 7), 1),
        (nn.ConvTranspose3d(2, 3, 1), (4, 3, 7, 7, 7), 1),
        (nn.Conv2d(2, 3, 1), (4, 147), 1),
    ),
)
def test_the_dimension_of_the_units(module, shape, dimension):
    assert units(module, torch.zeros(shape)) == dimension
    assert units(Layer("x", module), torch.zeros(shape)) == dimension


def test_the_layer_that_receives_decides():
    values = torch.zeros(4, 6, 7)  # (batch, channels, positions), from a Linear layer whose output was transposed.
    assert units(Layer("x", nn.Linear(5, 6)), values) == 2
    assert units(Layer("x", nn.Linear(5, 6), receiver=nn.Conv1d(6, 2, 3)), values) == 1


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1) if x.dim() == 3 else x


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def tokens_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, HIDDEN), nn.Sigmoid(), Mean(), nn.Linear(HIDDEN, CLASSES)
    ).double()  # fmt: skip


def learned(network, rule, x, y):
    session = Session(network, rule)
    session.begin_experience()
    session.before_forward(x, y)
    F.cross_entropy(network(x), y).backward()
    session.after_backward()
    session.before_step()
    return {name: p.grad for name, p in network.named_parameters()}


def test_naca_on_tokens_is_naca_on_each_token_as_a_sample_of_its_own():
    x = drawn(B, T, FEATURES)
    rule = NACA(reduction="sum")
    tokens = learned(tokens_network(), rule, x, Y)
    single = learned(tokens_network(), NACA(reduction="sum"), x.flatten(0, 1), Y.repeat_interleave(T))
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close(tokens[name], single[name], rtol=1e-10, atol=1e-12)
        assert tokens[name].abs().sum() > 0
    assert rule.state["projection"]["0"].shape == (2 * CLASSES, HIDDEN)
    mean = learned(tokens_network(), NACA(), x, Y)
    torch.testing.assert_close(mean["0.weight"] * B, tokens["0.weight"], rtol=1e-10, atol=1e-12)


def test_naca_gives_the_number_of_tokens_no_meaning():
    """The projection is of units, so sequences of another length go on with it."""
    network, rule = tokens_network(), NACA()
    session = Session(network, rule)
    session.begin_experience()
    for length in (T, 2):
        session.before_forward(drawn(B, length, FEATURES), Y)
        F.cross_entropy(network(drawn(B, length, FEATURES)), Y).backward()
        session.after_backward()
        session.before_step()
    assert rule.state["projection"]["0"].shape == (2 * CLASSES, HIDDEN)


@pytest.mark.parametrize(
    ("blocks", "shape", "width"),
    (
        ((nn.Conv1d(2, 6, 3), Swap(), nn.Linear(6, 4), Mean(), nn.Linear(4, CLASSES)), (B, 2, 9), 6),
        ((nn.Linear(2, 6), Swap(), nn.Conv1d(6, 4, 3), Swap(), Mean(), nn.Linear(4, CLASSES)), (B, 9, 2), 6),
        ((nn.Conv1d(2, 6, 3), nn.Flatten(), nn.Linear(42, CLASSES)), (B, 2, 9), 42),
    ),
)
def test_naca_finds_units_across_changes_of_layout(blocks, shape, width):
    network, rule = nn.Sequential(*blocks).double(), NACA(reduction="sum")
    x = drawn(*shape)
    found = learned(network, rule, x, Y)["0.weight"]
    assert rule.state["projection"]["0"].shape == (2 * CLASSES, width)
    first = next(i for i, module in enumerate(network) if i and isinstance(module, (nn.Linear, nn.Conv1d)))
    output = network[:first](x)
    modulation = rule._tables["0"][1][Y]  # (batch, units)
    error = modulation.unsqueeze(1) if isinstance(network[first], nn.Linear) else modulation.unsqueeze(2)
    error = modulation if output.dim() == 2 else error.expand_as(output)
    (expected,) = torch.autograd.grad(output, network[0].weight, error)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_naca_refuses_sequences_whose_first_dimension_is_time():
    network = tokens_network()
    network[4] = nn.Flatten(0, 1)
    session = Session(network, NACA())
    session.begin_experience()
    session.before_forward(drawn(T, B, FEATURES), Y)
    F.cross_entropy(network(drawn(T, B, FEATURES)), Y.repeat(T)).backward()
    with pytest.raises(ValueError, match="samples must be the first dimension"):
        session.after_backward()


@pytest.mark.parametrize("shape", ((B, FEATURES), (B, T, FEATURES), (B, 2, T, FEATURES)))
def test_context_gates_close_features_of_every_token(shape):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(FEATURES, 10), nn.ReLU(), nn.Linear(10, 2)).double()
    rule, tasks, x = XdG(gated=0.5), torch.tensor([0, 1, 1, 0]), drawn(*shape)
    with rule.in_task(network, tasks):
        together = network(x)
    hidden = network[1](F.linear(x, network[0].weight, network[0].bias))
    for index, task in enumerate(tasks.tolist()):
        gated = hidden[index] * rule.gates("2", 10, task).double()
        expected = F.linear(gated, network[2].weight, network[2].bias)
        torch.testing.assert_close(together[index], expected)
        with rule.in_task(network, task):
            torch.testing.assert_close(network(x)[index], expected)


def test_a_selective_layer_leaves_out_features_of_every_token():
    layer, x = SelectiveLinear(FEATURES, 4).double(), drawn(B, T, FEATURES)
    outputs, inputs = torch.tensor([0, 2]), torch.tensor([1, 3, 4])
    silent = x.clone()
    silent[..., [0, 2]] = 0.0
    torch.testing.assert_close(layer(silent, outputs, inputs), layer(silent)[..., outputs])

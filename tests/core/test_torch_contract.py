"""What the engine relies on in PyTorch's private parts, so that a release that moves one fails here, by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import NACA, Session
from lit_meta.core import _linear_block
from lit_meta.core.layers import compiled_parts, uncompiled, weight_layers


@pytest.mark.parametrize(
    ("function", "node"),
    ((torch.sigmoid, "SigmoidBackward0"), (torch.tanh, "TanhBackward0"), (torch.relu, "ReluBackward0")),
)
def test_activations_have_the_nodes_and_derivatives_that_are_known(function, node):
    x = torch.randn(5, 4, requires_grad=True)
    result = function(x)
    assert type(result.grad_fn).__name__ == node
    upstream = torch.randn(5, 4)
    (expected,) = torch.autograd.grad(result, x, upstream)
    assert torch.equal(_linear_block._DERIVATIVES[node](upstream, result.detach()), expected)


@pytest.mark.parametrize("bias", (True, False))
def test_a_product_keeps_its_other_factor(bias):
    layer, x = nn.Linear(4, 3, bias=bias), torch.randn(5, 4)
    node = layer(x).grad_fn
    name = type(node).__name__
    assert name == ("AddmmBackward0" if bias else "MmBackward0")
    assert torch.equal(getattr(node, _linear_block._FACTORS[name]), x)


def weights_after_three_steps() -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 5), nn.Sigmoid(), nn.Linear(5, 3))
        x, y = torch.randn(12, 6), torch.randint(0, 3, (12,))
        session, optimizer = Session(network, NACA(seed=0)), torch.optim.SGD(network.parameters(), lr=0.1)
        session.begin_experience()
        for _ in range(3):
            with session.step(x, y, optimizer):
                F.cross_entropy(network(x), y).backward()
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("table", ("_FACTORS", "_DERIVATIVES"))
def test_where_a_node_has_another_name_autograd_gives_the_same_bits(table, monkeypatch):
    fast = weights_after_three_steps()
    blocks = []
    simple = _linear_block.simple_block
    monkeypatch.setattr(_linear_block, table, {})
    monkeypatch.setattr("lit_meta.core.block_hooks.simple_block", lambda *a: blocks.append(simple(*a)) or blocks[-1])
    assert torch.equal(weights_after_three_steps(), fast)
    assert blocks
    assert all(block is None for block in blocks)


def test_a_compiled_module_is_seen_through():
    network = nn.Sequential(nn.Linear(2, 2))
    wrapped = torch.compile(network, backend="eager")
    assert uncompiled(wrapped) is network
    in_place = nn.Sequential(nn.Linear(2, 2))
    in_place.compile(backend="eager")
    assert compiled_parts(in_place, weight_layers(in_place)) == ["0"]
    assert compiled_parts(network, weight_layers(network)) == []

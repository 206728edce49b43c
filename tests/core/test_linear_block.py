"""Blocks whose gradient is made without autograd's engine: the same bits, and left to autograd wherever that is not certain."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lit_meta import NACA
from lit_meta.core._buffers import Recycled
from lit_meta.core._linear_block import simple_block
from lit_meta.core.session import Session


def by_autograd(layer: nn.Linear, output: torch.Tensor, upstream: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(output, list(layer.parameters()), upstream))


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("activation", (nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Identity()))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_a_simple_block_has_the_gradients_of_autograd_to_the_last_bit(activation, bias, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(70, 50, bias=bias, dtype=dtype)
    output = activation(layer(torch.rand(30, 70, dtype=dtype)))
    upstream = torch.randn(30, 50, dtype=dtype)
    block = simple_block(layer, output)
    assert block is not None
    error = block.error(upstream)
    with torch.no_grad():
        found = [block.weight_gradient(error, torch.empty_like(layer.weight)), *[error.sum(0)] * bias]
    for one, other in zip(found, by_autograd(layer, output, upstream), strict=True):
        assert torch.equal(one, other)


def hooked(layer: nn.Linear) -> nn.Linear:
    layer.weight.register_hook(lambda gradient: 2 * gradient)
    return layer


def watched(layer: nn.Linear) -> nn.Linear:
    layer.register_full_backward_hook(lambda module, before, after: None)
    return layer


class Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.parametrize(
    ("layer", "after"),
    (
        (nn.Linear(6, 4), nn.GELU()),
        (nn.Linear(6, 4), nn.Sequential(nn.Sigmoid(), nn.BatchNorm1d(4))),
        (nn.Linear(6, 4), nn.Softmax(1)),
        (hooked(nn.Linear(6, 4)), nn.Sigmoid()),
        (watched(nn.Linear(6, 4)), nn.Sigmoid()),
        (Doubled(6, 4), nn.Sigmoid()),
        (weight_norm(nn.Linear(6, 4)), nn.Sigmoid()),
        (nn.Bilinear(3, 3, 4), nn.Sigmoid()),
    ),
)
def test_other_blocks_are_left_to_autograd(layer, after):
    x = torch.rand(5, 6)
    y = layer(x[:, :3], x[:, 3:]) if isinstance(layer, nn.Bilinear) else layer(x)
    assert simple_block(layer, after(y)) is None


def test_a_weight_that_acts_in_two_ways_or_through_a_cast_is_left_to_autograd():
    layer, x = nn.Linear(6, 4, bias=False), torch.rand(5, 6)
    assert simple_block(layer, torch.sigmoid(layer(x) + x @ layer.weight.T)) is None
    assert simple_block(layer, torch.sigmoid(layer(x.view(5, 1, 6)))) is None
    assert simple_block(layer, torch.sigmoid(torch.addmm(layer(x), x, layer.weight.T))) is None
    assert simple_block(layer, torch.sigmoid(torch.addmm(torch.zeros(4), x, layer.weight.T, alpha=2))) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert simple_block(layer, torch.sigmoid(layer(x))) is None
    assert simple_block(nn.Linear(6, 4), torch.sigmoid(layer(x))) is None
    assert simple_block(layer, torch.sigmoid(layer(x)).detach()) is None


def test_hooks_on_the_output_are_left_to_autograd():
    layer, x = nn.Linear(6, 4), torch.rand(5, 6)
    hooked, kept = layer(x).sigmoid(), layer(x).sigmoid()
    hooked.register_hook(lambda gradient: 2 * gradient)
    kept.retain_grad()
    assert simple_block(layer, hooked) is None
    assert simple_block(layer, kept) is None


def test_activations_in_place_are_the_same():
    layer, x, upstream = nn.Linear(6, 4), torch.rand(5, 6) - 0.5, torch.rand(5, 4)
    output = nn.functional.relu_(layer(x))
    block = simple_block(layer, output)
    error = block.error(upstream)
    with torch.no_grad():
        found = block.weight_gradient(error, torch.empty_like(layer.weight))
    assert torch.equal(found, by_autograd(layer, output, upstream)[0])


def test_an_input_that_has_a_graph_of_its_own_is_left_to_autograd():
    first, second = nn.Linear(6, 4), nn.Linear(4, 4)
    assert simple_block(second, second(first(torch.rand(5, 6)))) is None


def test_a_graph_that_has_been_freed_is_an_error():
    layer = nn.Linear(6, 4)
    output = layer(torch.rand(5, 6)).sigmoid()
    output.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        simple_block(layer, output)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 50), nn.Sigmoid(), nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 3))


def learn(session: Session, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)
    session.before_forward(x, y)
    nn.functional.cross_entropy(session.network(x), y).backward()
    session.after_backward()


def test_a_gradient_that_someone_keeps_stays_as_it_is_and_one_that_nobody_keeps_is_written_over():
    session = Session(network(), NACA())
    optimizer = torch.optim.SGD(session.network.parameters(), lr=0.1)
    weight = session.network[0].weight
    kept, values, places = [], [], []
    with session.experience():
        for step in range(4):
            optimizer.zero_grad()
            learn(session, optimizer, step)
            session.before_step(optimizer)
            optimizer.step()
            session.after_step(optimizer)
            if step < 2:
                kept.append(weight.grad[1:3])  # A view keeps it as well.
                values.append(weight.grad[1:3].clone())
            else:
                places.append(weight.grad.data_ptr())
    assert places[0] == places[1]
    for view, value in zip(kept, values, strict=True):
        assert torch.equal(view, value)


@pytest.mark.parametrize("set_to_none", (True, False))
def test_gradients_of_several_batches_add_up(set_to_none):
    def gradients(seeds: list[int]) -> list[torch.Tensor]:
        session = Session(network(), NACA())
        optimizer = torch.optim.SGD(session.network.parameters(), lr=0.0)
        with session.experience():
            for _ in range(2):
                optimizer.zero_grad(set_to_none=set_to_none)
                for seed in seeds:
                    learn(session, optimizer, seed)
                session.before_step(optimizer)
                optimizer.step()
                session.after_step(optimizer)
        return [p.grad.clone() for p in session.network.parameters()]

    both, one, other = gradients([1, 2]), gradients([1]), gradients([2])
    for together, a, b in zip(both, one, other, strict=True):
        assert torch.allclose(together, a + b, rtol=1e-6, atol=1e-9)


def test_memory_is_used_again_only_for_the_same_shape_and_type():
    recycled = Recycled()
    place = recycled.empty("a", torch.zeros(2, 3)).data_ptr()
    assert recycled.empty("a", torch.zeros(2, 3)).data_ptr() == place
    other = recycled.empty("a", torch.zeros(2, 3, dtype=torch.int32))
    assert other.dtype == torch.int32
    assert recycled.empty("a", torch.zeros(3, 2)).shape == (3, 2)
    array = recycled.empty("b", torch.zeros(2)).numpy()
    assert recycled.empty("b", torch.zeros(2)).data_ptr() != array.ctypes.data

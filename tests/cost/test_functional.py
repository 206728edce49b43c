"""Counts against closed forms, torch's own counter, and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_meta.cost.operations import layer_macs, layer_synaptic_operations
from lit_meta.functional import cost

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@st.composite
def convolutions(draw):
    """A small convolution of 1 to 3 dimensions, and an input that fits."""
    dimensions = draw(st.integers(1, 3))
    groups = draw(st.sampled_from((1, 2)))
    kernel = [draw(st.integers(1, 3)) for _ in range(dimensions)]
    options = {
        name: tuple(draw(st.integers(low, 3 if name != "padding" else 2)) for _ in range(dimensions))
        for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    layer = CONVOLUTIONS[dimensions - 1](
        2 * groups, groups * draw(st.integers(1, 3)), kernel, groups=groups, bias=False, **options
    )
    size = [d * (k - 1) + 1 + draw(st.integers(0, 4)) for d, k in zip(options["dilation"], kernel, strict=True)]
    return layer, torch.ones(draw(st.integers(1, 3)), 2 * groups, *size)


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_macs_of_convolutions_are_those_of_torchs_counter(case):
    layer, x = case
    with FlopCounterMode(display=False) as counter:
        output = layer(x)
    assert 2 * layer_macs(layer, x, output) == counter.get_total_flops()
    size = cost.convolution_output_size(
        x.shape[2:], layer.kernel_size, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
    )
    assert size == output.shape[2:]


@given(convolutions(), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_synaptic_operations_of_convolutions_are_those_of_every_spike_on_its_own(case, seed):
    layer, x = case
    x = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()
    nn.init.ones_(layer.weight)
    reached = 0
    for where in x.nonzero():
        alone = torch.zeros_like(x)
        alone[tuple(where)] = 1
        reached += int(layer(alone).count_nonzero())
    assert int(layer_synaptic_operations(layer, x)) == reached


def test_macs_of_linear_and_transposed_layers_are_those_of_torchs_counter():
    for layer, x in (
        (nn.Linear(7, 5), torch.ones(4, 7)),
        (nn.Linear(7, 5), torch.ones(2, 3, 7)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), torch.ones(2, 4, 5, 6)),
        (nn.ConvTranspose1d(4, 6, 3), torch.ones(2, 4, 5)),
    ):
        with FlopCounterMode(display=False) as counter:
            output = layer(x)
        assert 2 * layer_macs(layer, x, output) == counter.get_total_flops()


def test_a_hand_counted_convolution():
    # 28 x 28 with stride 2 and padding 2: 14 x 14 positions of 128 kernels with 64 / 4 x 25 weights each.
    expected = 32 * 14 * 14 * 128 * 16 * 25
    assert cost.convolution_macs(32, 64, 128, (5, 5), (14, 14), groups=4) == expected
    assert cost.convolution_output_size((28, 28), 5, stride=2, padding=2) == (14, 14)


def test_linear_synaptic_operations_are_spikes_times_fan_out():
    spikes = torch.zeros(20, 3, 50)
    spikes[torch.rand(20, 3, 50, generator=torch.Generator().manual_seed(0)) < 0.2] = 1
    assert int(cost.linear_synaptic_operations(spikes, 30)) == int(spikes.sum()) * 30


def test_energy_and_the_published_convention():
    assert cost.energy(10, 100) == pytest.approx((10 * 4.6 + 100 * 0.9) * 1e-12)
    assert cost.energy(10, 100, picojoules_per_mac=1, picojoules_per_accumulate=0) == pytest.approx(1e-11)
    m, n, k = 784, 1000, 10
    w = m * n + n * k
    assert cost.published_operations((m, n, k), "sgd", epochs=2) == 2 * 2 * w
    assert cost.published_operations((m, n, k), "ewc", tasks=3) == 2 * w + 3 * w
    assert cost.published_operations((m, n, k), "naca", epochs=1.32) == pytest.approx(1.32 * w)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        cost.convolution_macs(1, 3, 4, (3,), (5,), groups=2)
    with pytest.raises(ValueError, match="does not fit"):
        cost.convolution_output_size((4, 4), 5)
    with pytest.raises(ValueError, match="padding must be one number or 2"):
        cost.convolution_output_size((4, 4), 3, padding=(1, 1, 1))
    with pytest.raises(ValueError, match="must not be negative"):
        cost.linear_macs(-1, 2, 3)
    with pytest.raises(ValueError, match="1 to 3 spatial"):
        cost.convolution_fan_out((2, 2, 2, 2), (1, 1, 1, 1))
    with pytest.raises(ValueError, match="rule must be one of"):
        cost.published_operations((2, 3), "si")
    with pytest.raises(TypeError, match="fan-out"):
        layer_synaptic_operations(nn.Conv1d(1, 1, 3, padding="same"), torch.ones(1, 1, 4))
    with pytest.raises(TypeError, match="expected a Linear layer"):
        layer_macs(nn.ReLU(), torch.ones(1), torch.ones(1))


def test_lif_updates():
    assert cost.lif_updates(256, 1000, 20) == math.prod((256, 1000, 20))


@pytest.mark.parametrize(
    "dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool)
)
def test_nonzero_values_are_counted_whatever_their_type_and_layout(dtype):
    generator = torch.Generator().manual_seed(0)
    # More values than one part holds, transposed, with a negative zero, a tiny value and one that is no number.
    values = (torch.rand(401, 331, generator=generator) < 0.3).to(dtype).T
    if dtype.is_floating_point:
        values[0, :3] = torch.tensor([-0.0, torch.finfo(dtype).tiny, math.nan], dtype=dtype)
    assert int(cost.nonzero_count(values)) == len(values.nonzero())
    assert cost.nonzero_count(values, dim=-1).tolist() == [len(row.nonzero()) for row in values]
    assert int(cost.nonzero_count(values[:0])) == 0
    assert cost.nonzero_count(values).dtype == torch.int64

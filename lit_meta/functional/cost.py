"""Counting operations: multiply-accumulates of weight layers, synaptic operations, energy, the published convention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Size = int | Sequence[int]

# Picojoules at 45 nm and 32 bits floating point: a multiply-accumulate, and an accumulate.
PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_ACCUMULATE = 0.9

# Single precision counts exactly up to here.
_EXACT = 2**24

# How many values are compared at once.
_PART = 2**16

# NumPy has no bfloat16, and no processor instructions for half precision.
_NARROW = (torch.bfloat16, torch.float16)


def linear_macs(samples: int, inputs: int, outputs: int) -> int:
    """Multiply-accumulates of a fully connected layer, ``samples · inputs · outputs``; a bias adds none.

    The weight gradient takes as many again, and so does the input gradient.

    Args:
        samples: rows of the input, over all leading dimensions.
        inputs: features in.
        outputs: features out.

    Example:
        >>> linear_macs(256, 784, 1000)
        200704000
    """
    _natural(samples=samples, inputs=inputs, outputs=outputs)
    return samples * inputs * outputs


def convolution_output_size(
    size: Sequence[int], kernel: Size, *, stride: Size = 1, padding: Size = 0, dilation: Size = 1
) -> tuple[int, ...]:
    """Spatial size of a convolution's output, ``⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1``.

    Args:
        size: of the input, one number a spatial dimension.
        kernel: its size; this and the options below are one number for all dimensions, or one for each.
        stride: steps between positions.
        padding: zeros on either side.
        dilation: distance between the kernel's elements.

    Raises:
        ValueError: a wrong number of values, or a kernel larger than the padded input.

    Example:
        >>> convolution_output_size((28, 28), 5, stride=2, padding=2)
        (14, 14)
    """
    wide = tuple(_each(v, len(size), name) for name, v in _named(kernel, stride, padding, dilation))
    output = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, *wide, strict=True))
    if any(n < 1 for n in output):
        raise ValueError(f"a kernel of {kernel} (dilation {dilation}) does not fit into an input of {tuple(size)}")
    return output


def convolution_macs(
    samples: int,
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    output_size: Sequence[int],
    *,
    groups: int = 1,
) -> int:
    """Multiply-accumulates of a convolution, ``samples · C_in/groups · Πkernel · C_out · Πoutput_size``.

    Products with padded zeros count, as dense libraries compute them. For a transposed convolution, pass the input's
    size in place of the output's: every input position meets every element of the kernel.

    Args:
        samples: in the batch.
        in_channels: C_in, a multiple of ``groups``.
        out_channels: C_out, a multiple of ``groups``.
        kernel: its size, one number a spatial dimension.
        output_size: likewise.
        groups: blocks of channels that do not see each other.

    Raises:
        ValueError: a negative number, or channels that the groups do not divide.

    Example:
        >>> convolution_macs(1, 64, 128, (5, 5), (14, 14)), convolution_macs(1, 64, 128, (5, 5), (14, 14), groups=64)
        (40140800, 627200)
    """
    _natural(samples=samples, in_channels=in_channels, out_channels=out_channels, groups=groups)
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups do not divide {in_channels} channels in and {out_channels} out")
    return samples * (in_channels // groups) * math.prod(kernel) * out_channels * math.prod(output_size)


def nonzero_count(values: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """How many values are not zero.

    Args:
        values: of any type.
        dim: dimensions to count over, which must hold fewer than 2²⁴ values together; None counts all, however many.

    Returns:
        int64.

    Example:
        >>> nonzero_count(torch.tensor([[0.0, 0.5], [1.0, 1.0]]), dim=-1)
        tensor([1, 2])
    """
    if dim is None and values.device.type == "cpu" and values.dtype not in _NARROW:
        # NumPy compares into bytes and counts them in about half the time that torch takes; parts stay in the cache.
        flat = values.detach().reshape(-1).numpy()
        return torch.tensor(sum(np.count_nonzero(flat[i : i + _PART] != 0) for i in range(0, len(flat), _PART)))
    if not values.is_floating_point() or (dim is None and values.numel() >= _EXACT):
        return (values != 0).sum(dim=dim)
    # Comparing into numbers and summing in single precision takes a fifth of the time of summing booleans.
    values = values.detach()
    return torch.ne(values, 0, out=torch.empty_like(values)).sum(dim=dim, dtype=torch.float32).long()


def linear_synaptic_operations(spikes: Tensor, outputs: int) -> Tensor:
    """Synaptic operations of a fully connected layer: nonzero inputs times fan-out.

    Args:
        spikes: (..., inputs).
        outputs: features out, the fan-out of every input.

    Returns:
        A scalar, int64.

    Example:
        >>> linear_synaptic_operations(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), 10)
        tensor(30)
    """
    return nonzero_count(spikes) * outputs


def convolution_fan_out(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    device: torch.device | None = None,
) -> Tensor:
    """How many output positions each input position of a convolution reaches; less at the border and between strides.

    Args:
        size: of the input, one number a spatial dimension (1 to 3 of them).
        kernel: its size.
        stride: steps between positions.
        padding: zeros on either side.
        dilation: distance between the kernel's elements.
        device: of the result.

    Returns:
        int64, of shape ``size``. A spike's fan-out is this times the output channels of its group.

    Raises:
        ValueError: as for `convolution_output_size`, or other than 1 to 3 dimensions.

    Example:
        >>> convolution_fan_out((4,), (3,), padding=1)
        tensor([2, 3, 3, 2])
    """
    dimensions = len(size)
    if not 1 <= dimensions <= 3:
        raise ValueError(f"a convolution has 1 to 3 spatial dimensions, got an input of size {tuple(size)}")
    output = convolution_output_size(size, kernel, stride=stride, padding=padding, dilation=dilation)
    fan_out = torch.ones((), dtype=torch.long, device=device)
    wide = (_each(v, dimensions, name) for name, v in _named(kernel, stride, padding, dilation))
    for n, o, k, s, p, d in zip(size, output, *wide, strict=True):
        # Where every element of the kernel lands, for every output position; the count is a product over dimensions.
        lands = torch.arange(o, device=device)[:, None] * s - p + torch.arange(k, device=device) * d
        inside = lands[(lands >= 0) & (lands < n)]
        fan_out = fan_out.unsqueeze(-1) * torch.bincount(inside, minlength=n)
    return fan_out


def convolution_synaptic_operations(
    spikes: Tensor,
    out_channels: int,
    kernel: Sequence[int],
    *,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Synaptic operations of a convolution: each nonzero input times the output units that it reaches.

    Args:
        spikes: (batch, channels, *size).
        out_channels: C_out.
        kernel: its size, one number a spatial dimension.
        stride: steps between positions.
        padding: zeros on either side.
        dilation: distance between the kernel's elements.
        groups: a spike reaches ``out_channels / groups`` channels.

    Returns:
        A scalar, int64.

    Example:
        >>> convolution_synaptic_operations(torch.tensor([[[1.0, 0.0, 1.0, 0.0]]]), 8, (3,), padding=1)
        tensor(40)
    """
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    fan_out = convolution_fan_out(spikes.shape[2:], kernel, device=spikes.device, **options)
    return (nonzero_count(spikes, dim=(0, 1)) * fan_out).sum() * (out_channels // groups)


def lif_updates(samples: int, neurons: int, steps: int) -> int:
    """Membrane updates of leaky integrate-and-fire neurons, one multiply-accumulate per neuron and step.

    Args:
        samples: in the batch.
        neurons: in the layer.
        steps: time steps of the simulation.

    Example:
        >>> lif_updates(256, 1000, 20)
        5120000
    """
    _natural(samples=samples, neurons=neurons, steps=steps)
    return samples * neurons * steps


def energy(
    macs: float,
    accumulates: float,
    *,
    picojoules_per_mac: float = PICOJOULES_PER_MAC,
    picojoules_per_accumulate: float = PICOJOULES_PER_ACCUMULATE,
) -> float:
    """Energy of the arithmetic, in joules; memory traffic is not counted.

    Args:
        macs: multiply-accumulates.
        accumulates: additions without a product, as caused by a spike.
        picojoules_per_mac: 4.6 at 45 nm.
        picojoules_per_accumulate: 0.9 at 45 nm.

    Source: Horowitz, ISSCC 2014 (32-bit floating point: multiplication 3.7 pJ, addition 0.9 pJ).

    Example:
        >>> energy(1e12, 0.0), energy(0.0, 1e12)
        (4.6, 0.9)
    """
    return (macs * picojoules_per_mac + accumulates * picojoules_per_accumulate) * 1e-12


def published_operations(
    sizes: Sequence[int], rule: Literal["sgd", "ewc", "naca"], *, epochs: float = 1.0, tasks: int = 0
) -> float:
    """Operations by the convention published with NACA: epochs times a count over the weights of the layers.

    With ``w = Σ weights`` (mn + nk for sizes m, n, k): SGD ``2w``, EWC ``2w + tasks · w``, NACA ``w``. It counts a single
    sample, whatever their number, and leaves out NACA's forward pass; use it only to compare with published tables.

    Args:
        sizes: units of every layer, from the input to the output.
        rule: the learning rule.
        epochs: passes over the data.
        tasks: number of past tasks that EWC remembers.

    Raises:
        ValueError: an unknown rule, or fewer than two sizes.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023.

    Example:
        >>> [published_operations((784, 1000, 10), rule) for rule in ("sgd", "naca")]
        [1588000.0, 794000.0]
    """
    if len(sizes) < 2:
        raise ValueError(f"a network has at least an input and an output layer, got the sizes {tuple(sizes)}")
    weights = sum(a * b for a, b in pairwise(sizes))
    factors = {"sgd": 2, "ewc": 2 + tasks, "naca": 1}
    if rule not in factors:
        raise ValueError(f"rule must be one of {', '.join(map(repr, factors))}, got {rule!r}")
    return float(epochs * factors[rule] * weights)


def _named(kernel: Size, stride: Size, padding: Size, dilation: Size) -> tuple[tuple[str, Size], ...]:
    return ("kernel", kernel), ("stride", stride), ("padding", padding), ("dilation", dilation)


def _each(value: Size, dimensions: int, name: str) -> tuple[int, ...]:
    values = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(values) != dimensions:
        raise ValueError(f"{name} must be one number or {dimensions}, got {value}")
    return values


def _natural(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")

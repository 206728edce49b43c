"""Leaky integrate-and-fire dynamics, surrogate derivatives, and the encoding of intensities as spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Surrogate = Literal["stdp", "rectangular"]
SURROGATES = ("stdp", "rectangular")


class LIFState(NamedTuple):
    """State of a layer of leaky integrate-and-fire neurons, carried from one step to the next.

    Attributes:
        potential: V, (batch, ...).
        spikes: S, the shape of V, 0 or 1.
    """

    potential: Tensor
    spikes: Tensor

    @classmethod
    def at_rest(cls, current: Tensor) -> LIFState:
        """The state before the first step: no potential, no spikes, shaped like `current`."""
        rest = torch.zeros_like(current, requires_grad=False)
        return cls(rest, rest)


def _positive(difference: Tensor) -> Tensor:
    """[d > 0] in the type of d: the sign of the rectified value, several times faster than converting a boolean.

    In IEEE arithmetic a difference is above zero exactly where the first number is above the second.
    """
    return difference.detach().relu().sign()


class _STDPSpike(torch.autograd.Function):
    """[V > threshold], backwards as spike-timing-dependent plasticity: active now against active before."""

    generate_vmap_rule = True

    @staticmethod
    def forward(potential: Tensor, previous: Tensor, threshold: float, lens: float) -> Tensor:
        return _positive(potential - threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        potential, previous, threshold, lens = inputs
        ctx.save_for_backward(potential, previous)
        ctx.floor = threshold - lens

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        potential, previous = ctx.saved_tensors
        return gradient * ((potential > ctx.floor).to(gradient.dtype) - previous), None, None, None


class _RectangularSpike(torch.autograd.Function):
    """[V > threshold], backwards as a rectangle of unit area around the threshold."""

    generate_vmap_rule = True

    @staticmethod
    def forward(potential: Tensor, threshold: float, lens: float) -> Tensor:
        return _positive(potential - threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        potential, threshold, lens = inputs
        ctx.save_for_backward(potential)
        ctx.threshold, ctx.lens = threshold, lens

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (potential,) = ctx.saved_tensors
        near = (potential - ctx.threshold).abs() < ctx.lens
        return gradient * near.to(gradient.dtype) / (2.0 * ctx.lens), None, None


def lif_step(
    current: Tensor,
    state: LIFState | None = None,
    *,
    decay: float = 0.2,
    threshold: float = 0.5,
    surrogate: Surrogate | None = None,
    lens: float = 0.2,
    before: Tensor | None = None,
) -> tuple[Tensor, LIFState]:
    """One step of leaky integrate-and-fire neurons that reset after a spike.

    ``V_t = d · V_{t−1} (1 − S_{t−1}) + I_t``, ``S_t = [V_t > threshold]``.

    Args:
        current: I_t, (batch, ...).
        state: the state after the step before; None is rest (V = S = 0).
        decay: d, the share of the potential kept over a step.
        threshold: the potential above which a neuron fires.
        surrogate: replaces the derivative of the spike, which is 0 almost everywhere:
            None lets no gradient through;
            ``"stdp"`` is ``∂S_t/∂V_t := [V_t > threshold − lens] − S_{t−1}``;
            ``"rectangular"`` is ``[|V_t − threshold| < lens] / (2 lens)``.
        lens: half-width of the surrogate below (and, for the rectangle, above) the threshold, in units of V,
            above 0.
        before: S_{t−1} of the surrogate ``"stdp"``, the shape of `current`, where it is not the spike that resets: behind a
            gate, the spike that fired and the one that was sent differ. None takes `state.spikes`.

    Returns:
        The spikes S_t, in the shape and type of `current`, and the state to pass to the next step. The state
        keeps its graph for backpropagation through time; detach it to truncate.

    Raises:
        ValueError: an unknown surrogate, a lens that is not positive, a state of another shape, or `before` with another
            surrogate than ``"stdp"``.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023; the rectangle: Wu et al., Frontiers in
    Neuroscience 12:331, 2018.

    Example:
        >>> spikes, state = lif_step(torch.tensor([[0.45, 0.6]]))
        >>> spikes, state = lif_step(torch.tensor([[0.45, 0.45]]), state)
        >>> spikes, state.potential  # the second neuron was reset by its spike
        (tensor([[1., 0.]]), tensor([[0.5400, 0.4500]]))
    """
    if surrogate is not None and surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(map(repr, SURROGATES))} or None, got {surrogate!r}.")
    if not lens > 0:
        raise ValueError(f"lens must be positive, got {lens}.")
    if state is None:
        state = LIFState.at_rest(current)
    elif state.potential.shape != current.shape:
        raise ValueError(
            f"the state has shape {tuple(state.potential.shape)} and the current {tuple(current.shape)}: "
            "start every batch from rest (state=None)."
        )
    if before is not None and surrogate == "rectangular":
        raise ValueError("before is the last spike of the surrogate 'stdp'; 'rectangular' does not look at it.")
    potential = torch.addcmul(current, state.potential, 1.0 - state.spikes, value=decay)
    if surrogate == "stdp":
        last = state.spikes if before is None else before
        spikes = _STDPSpike.apply(potential, last.detach(), threshold, lens)
    elif surrogate == "rectangular":
        spikes = _RectangularSpike.apply(potential, threshold, lens)
    else:
        spikes = _positive(potential - threshold)
    return spikes, LIFState(potential, spikes)


def _check_encoding(steps: int, low: float | Tensor, high: float | Tensor) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    # Tensors come from the data; comparing them here would make the host wait for the device.
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}.")


def bernoulli_encode(
    x: Tensor,
    steps: int,
    *,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    range: Literal["fixed", "batch"] = "fixed",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Spikes at a rate that grows with intensity, ``x_t = [x > uniform(low, high)]``, drawn anew each step.

    Args:
        x: (batch, ...), intensities.
        steps: T, at least 1.
        low: the intensity that never fires.
        high: the intensity that always does.
        range: ``"fixed"`` uses `low` and `high`; ``"batch"``, as in the code published with the paper, uses
            the smallest and largest value of the batch, so that the rate of one sample depends on the others.
        generator: random generator on the device of `x`; None is torch's global one.

    Returns:
        (steps, batch, ...), 0 or 1, in the type of `x`.

    Raises:
        ValueError: steps below 1, low not below high, or an unknown range.

    Source: Zhang et al. 2023; the fixed range is ours. For predictions see `encoding_thresholds`.

    Example:
        >>> x = torch.tensor([[0.0, 0.5, 1.0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> bernoulli_encode(x, 1000, generator=generator).mean(dim=0).round(decimals=1)
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    if range not in ("fixed", "batch"):
        raise ValueError(f"range must be 'fixed' or 'batch', got {range!r}.")
    if range == "batch":
        low, high = x.amin(), x.amax()
    _check_encoding(steps, low, high)
    uniform = torch.rand((steps, *x.shape), generator=generator, device=x.device)
    return _above(x, uniform, low, high)


def _above(x: Tensor, uniform: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    if not isinstance(low, float) or not isinstance(high, float) or (low, high) != (0.0, 1.0):
        uniform = uniform * (high - low) + low
    return uniform.lt_(x.detach()).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())


def _hash(value: Tensor) -> Tensor:
    """A 32-bit mixing function on int64; both factors are below 2³¹, so no product overflows."""
    value = value ^ (value >> 16)
    value = (value * 0x21F0AAAD) & 0xFFFFFFFF
    value = value ^ (value >> 15)
    value = (value * 0x735A2D97) & 0xFFFFFFFF
    return value ^ (value >> 15)


def encoding_thresholds(
    shape: Sequence[int],
    steps: int,
    *,
    seed: int = 0,
    start: int = 0,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fixed thresholds for `threshold_encode`: uniform over features and steps, the same for every sample.

    A threshold is a hash of (seed, step, feature), not a random draw: it is the same on every device and in
    every version of torch, needs no buffer, and any range of steps can be computed without those before it.

    Args:
        shape: of the features of one sample.
        steps: number of steps, at least 1.
        seed: selects the table, from 0 to 2³² − 1.
        start: the first step, counted from 0.
        low: lower bound of the thresholds, inclusive.
        high: upper bound, exclusive.
        device: device of the thresholds.

    Returns:
        (steps, \\*shape), single precision.

    Raises:
        ValueError: steps below 1, a negative start, low not below high, or a seed out of range.

    Example:
        >>> whole = encoding_thresholds((784,), 20)
        >>> bool((whole[5:] == encoding_thresholds((784,), 15, start=5)).all())
        True
    """
    _check_encoding(steps, low, high)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}.")
    if start < 0:
        raise ValueError(f"start must not be negative, got {start}.")
    mask = 0xFFFFFFFF
    # The hash maps 0 to 0, so 1 is added before the first.
    key = _hash((torch.tensor(seed, device=device) + 1) & mask)
    key = _hash((torch.arange(start, start + steps, device=device) + key) & mask)
    key = _hash((torch.arange(math.prod(shape), device=device) + key[:, None]) & mask)
    # 24 bits: the most that single precision keeps below 1.
    uniform = (key >> 8).float() * 2.0**-24
    if isinstance(low, Tensor) or isinstance(high, Tensor) or (low, high) != (0.0, 1.0):
        uniform = uniform * (high - low) + low
    return uniform.view(steps, *shape)


def threshold_encode(x: Tensor, thresholds: Tensor) -> Tensor:
    """Spikes wherever the intensity is above the threshold of its feature and step, ``x_t = [x > θ_t]``.

    With thresholds that do not depend on the data, equal samples give equal spikes in any batch, so a
    prediction depends on its own sample alone; over the steps the rate is that of `bernoulli_encode`.

    Args:
        x: (batch, \\*features), intensities.
        thresholds: (steps, \\*features), from `encoding_thresholds`.

    Returns:
        (steps, batch, \\*features), 0 or 1, in the type of `x`.

    Raises:
        ValueError: the features differ.

    Example:
        >>> x = torch.full((1, 1), 0.3)
        >>> threshold_encode(x, encoding_thresholds((1,), 1000)).mean().round(decimals=1)
        tensor(0.3000)
    """
    if x.shape[1:] != thresholds.shape[1:]:
        raise ValueError(
            f"samples of shape {tuple(x.shape[1:])} need thresholds of shape (steps, *{tuple(x.shape[1:])}), "
            f"got {tuple(thresholds.shape)}."
        )
    above = _positive(x - thresholds.unsqueeze(1))
    return above.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())

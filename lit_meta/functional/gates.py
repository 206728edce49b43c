"""Input-driven gates: which hidden units a sample (or a batch) lets through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_index(features: int, units: int, *, device: torch.device | str | None = None) -> Tensor:
    """For each of `units` outputs, the index of the input value that nearest-neighbour resampling gives it.

    Computed by `torch.nn.functional.interpolate` itself, so it rounds exactly as that does. Compute it once for each
    size and pass it to the gates as `index`.

    Args:
        features: number of input values, at least 1.
        units: number of output values, at least 1.
        device: device of the index.

    Returns:
        (units,) int64.

    Raises:
        ValueError: either is below 1, or `features` is too large (above 2²⁴) to be counted in single
            precision.

    Example:
        >>> nearest_index(4, 6).tolist()
        [0, 0, 1, 2, 2, 3]
    """
    if features < 1 or units < 1:
        raise ValueError(f"features and units must be at least 1, got features={features}, units={units}.")
    if features > 2**24:
        raise ValueError(f"a gate can read at most {2**24} input values, got {features}.")
    positions = torch.arange(features, device=device, dtype=torch.float32)
    return F.interpolate(positions[None, None], size=units, mode="nearest")[0, 0].long()


def _check_batch(x: Tensor) -> None:
    if x.dim() < 2 or x.shape[0] == 0 or x[0].numel() == 0:
        raise ValueError(f"a gate needs a non-empty batch of inputs (batch, ...), got shape {tuple(x.shape)}.")


def _resampled(x: Tensor, units: int, index: Tensor | None) -> Tensor:
    """The input as (batch, units), at least in single precision: a gate's slope overflows half."""
    _check_batch(x)
    if units < 1:
        raise ValueError(f"a gate needs at least one unit to act on, got units={units}.")
    x = x.flatten(1)
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if index is None:
        index = nearest_index(x.shape[1], units, device=x.device)
    elif index.shape != (units,):
        raise ValueError(f"index must have shape ({units},), one entry per unit, got {tuple(index.shape)}.")
    return x.index_select(1, index)


def _open(drive: Tensor, margin: float | None, threshold: float | None, slope: float) -> Tensor:
    if (margin is None) == (threshold is None):
        raise ValueError(
            "a gate opens either `margin` below its largest input or at an absolute `threshold`: "
            f"pass exactly one of them, got margin={margin}, threshold={threshold}."
        )
    if margin is not None and not margin >= 0:
        raise ValueError(f"margin must not be negative (every unit would be closed), got {margin}.")
    if not slope > 0:
        raise ValueError(f"slope must be positive, got {slope}.")
    if margin is not None:
        drive = drive - (drive.amax(dim=-1, keepdim=True) - margin)
    elif threshold is not None:
        drive = drive - threshold
    return torch.sigmoid(slope * drive)


def batch_gate(
    x: Tensor,
    units: int,
    *,
    margin: float | None = None,
    threshold: float | None = None,
    slope: float = 1000.0,
    index: Tensor | None = None,
) -> Tensor:
    """The published gate, ``g = logistic(s (ū − τ))``, ``ū`` the resampled *batch mean* of the input.

    Because of the mean, a prediction depends on the other samples in its batch, and where each batch holds a
    single class, the gate reveals that class to the network. It is kept to reproduce published numbers; to
    compare learning rules, use `sample_gate` or `top_k_gate`.

    Args:
        x: (batch, ...), the raw input of the network.
        units: hidden units the gate multiplies.
        margin: δ; the gate opens at ``τ = max(ū) − δ``. The paper: 0.2, for CIFAR-10 0.1.
        threshold: an absolute τ in place of a margin. The paper: 0.8 for MathGreek.
        slope: s, the steepness of the logistic.
        index: `nearest_index` of this size, to avoid recomputing it.

    Returns:
        (units,), every entry in [0, 1].

    Raises:
        ValueError: no samples, no units, not exactly one of margin and threshold, or one of them out of
            range.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 0.6]])
        >>> batch_gate(x, 4, margin=0.2)
        tensor([0., 0., 1., 1.])
    """
    _check_batch(x)
    # The mean comes first: resampling commutes with it and then touches a single row.
    mean = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32)).mean(dim=0, keepdim=True)
    return _open(_resampled(mean, units, index), margin, threshold, slope)[0]


def sample_gate(
    x: Tensor,
    units: int,
    *,
    margin: float | None = None,
    threshold: float | None = None,
    slope: float = 1000.0,
    index: Tensor | None = None,
) -> Tensor:
    """A separate gate for each sample, ``g_b = logistic(s (u_b − τ_b))``: no sample sees another.

    Args:
        x: (batch, ...), the raw input of the network.
        units: hidden units the gate multiplies.
        margin: δ; the gate opens at ``τ_b = max(u_b) − δ``.
        threshold: an absolute τ in place of a margin.
        slope: s, the steepness of the logistic.
        index: `nearest_index` of this size, to avoid recomputing it.

    Returns:
        (batch, units), every entry in [0, 1]; for a batch of one the same as `batch_gate`.

    Raises:
        ValueError: as `batch_gate`.

    Source: ours, after Zhang et al. 2023.

    Example:
        >>> sample_gate(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), 2, margin=0.2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    return _open(_resampled(x, units, index), margin, threshold, slope)


def top_k_gate(x: Tensor, units: int, k: int, *, index: Tensor | None = None) -> Tensor:
    """Opens exactly the k units with the largest resampled input, for each sample separately.

    Ties are broken by the order of the units, on every device and in every batch.

    Args:
        x: (batch, ...), the raw input of the network.
        units: hidden units the gate multiplies.
        k: units to open, from 1 to `units`.
        index: `nearest_index` of this size, to avoid recomputing it.

    Returns:
        (batch, units) of 0 and 1; every row sums to k.

    Raises:
        ValueError: no samples, no units, or k outside 1 ... units.

    Example:
        >>> top_k_gate(torch.tensor([[0.1, 0.9, 0.9, 0.0]]), 4, 1)
        tensor([[0., 1., 0., 0.]])
    """
    drive = _resampled(x, units, index)
    if not 1 <= k <= units:
        raise ValueError(f"a top-k gate over {units} units can open from 1 to {units} of them, got k={k}.")
    # Which of several equal entries `topk` picks is undefined, but the k-th largest value is not.
    smallest = drive.topk(k, dim=1).values[:, -1:]
    above = drive > smallest
    equal = drive == smallest
    room = k - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= room))).to(drive.dtype)

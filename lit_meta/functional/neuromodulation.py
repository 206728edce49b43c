"""NACA's neuromodulation: how much, and in which direction, the expected class lets each unit change."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["uniform", "normal", "beta"]
CodeKind = Literal["paper", "disjoint"]


def _code_positions(classes: int, kind: str) -> list[int]:
    """The first of the two neighbouring indices each class switches on."""
    if kind == "disjoint":
        return [2 * (classes - 1 - c) for c in range(classes)]
    scale, log_classes = 2 * (classes - 1), math.log(classes)
    return [math.floor(scale * math.sqrt(math.log(classes / (c + 1)) / log_classes)) for c in range(classes)]


def expectation_code(
    classes: int,
    *,
    kind: CodeKind = "paper",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Code each class by two neighbouring expectation neurons.

    ``e_c = ½ (onehot(α_c) + onehot(α_c + 1))`` with ``α_c = ⌊2 (N − 1) √(ln(N / (c + 1)) / ln N)⌋``.

    Args:
        classes: N, the number of classes, at least 2.
        kind: ``"paper"`` places ``α_c`` as above, so that neighbouring codes may share one index (two pairs
            at N = 10, 21 at N = 46); ``"disjoint"`` places ``α_c = 2 (N − 1 − c)``, so that no two classes
            share any.
        device: device of the code.
        dtype: its floating type (default: torch's default).

    Returns:
        (classes, 2 * classes): row c is ``e_c``; every row sums to 1.

    Raises:
        ValueError: fewer than two classes, an unknown kind, or two classes whose paper codes are the same.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023. ``"disjoint"`` is ours.

    Example:
        >>> expectation_code(10).argmax(dim=1).tolist()
        [18, 15, 13, 11, 9, 8, 7, 5, 3, 0]
    """
    if kind not in ("paper", "disjoint"):
        raise ValueError(f"kind must be 'paper' or 'disjoint', got {kind!r}.")
    if classes < 2:
        raise ValueError(
            f"an expectation code needs at least 2 classes, got {classes}: with one class "
            "there is nothing to expect (and ln N = 0 divides the paper's formula). "
            "Pass the number of classes of the whole stream."
        )
    positions = _code_positions(classes, kind)
    # The positions never rise with the class, so equal ones are neighbours.
    for c in range(1, classes):
        if positions[c] == positions[c - 1]:
            raise ValueError(
                f"classes {c - 1} and {c} of {classes} get the same expectation code (index {positions[c]}) "
                "under kind='paper'; use kind='disjoint', which gives every class its own pair of indices."
            )
    first = torch.tensor(positions, device=device)
    code = torch.zeros(classes, 2 * classes, device=device, dtype=dtype)
    rows = torch.arange(classes, device=device)
    code[rows, first] = 0.5
    code[rows, first + 1] = 0.5
    return code


def neuromodulator_projection(
    classes: int,
    units: int,
    *,
    distribution: Distribution = "uniform",
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw the fixed random pathway ``NI`` from the expectation neurons to the hidden units.

    Args:
        classes: N, the number of classes.
        units: number of hidden units the pathway projects to.
        distribution: ``"uniform"`` on [0, 1]; ``"normal"`` with mean 0.5 and standard deviation 1, clipped to
            [0, 1]; ``"beta"``, Beta(½, ½), drawn exactly as ``sin²(π u / 2)`` of a uniform u.
        generator: random generator, which also sets the device; None is torch's global one on the CPU.
        dtype: its floating type (default: torch's default).

    Returns:
        (2 * classes, units), every entry in [0, 1].

    Raises:
        ValueError: no classes, no units, or an unknown distribution.

    Source: Zhang et al. 2023.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> neuromodulator_projection(10, 100, distribution="beta", generator=generator).shape
        torch.Size([20, 100])
    """
    if classes < 1 or units < 1:
        raise ValueError(f"classes and units must be at least 1, got classes={classes}, units={units}.")
    if distribution not in ("uniform", "normal", "beta"):
        raise ValueError(f"distribution must be 'uniform', 'normal' or 'beta', got {distribution!r}.")
    device = generator.device if generator is not None else None
    shape = (2 * classes, units)
    if distribution == "normal":
        return torch.randn(shape, generator=generator, device=device, dtype=dtype).add_(0.5).clamp_(0.0, 1.0)
    uniform = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return uniform if distribution == "uniform" else uniform.mul_(math.pi / 2).sin_().square_()


def neuromodulator_level(code_rows: Tensor, projection: Tensor) -> Tensor:
    """The neuromodulator level at every unit, ``λ_j = e_c · NI[:, j]``.

    Args:
        code_rows: (..., 2 * classes), rows of `expectation_code`.
        projection: (2 * classes, units), from `neuromodulator_projection`.

    Returns:
        (..., units).

    Raises:
        ValueError: the shapes do not match.

    Source: Zhang et al. 2023.

    Example:
        >>> neuromodulator_level(expectation_code(2), torch.tensor([[0.0], [0.2], [0.4], [1.0]]))
        tensor([[0.7000],
                [0.1000]])
    """
    if projection.dim() != 2 or code_rows.shape[-1] != projection.shape[0]:
        raise ValueError(
            f"code rows {tuple(code_rows.shape)} and projection {tuple(projection.shape)} do not fit: "
            "expected (..., 2 * classes) and (2 * classes, units)."
        )
    return code_rows @ projection


def plasticity_modulation(level: Tensor, *, inversion: float = 0.5, maximum: float = 1.2) -> Tensor:
    """The nonlinear modulation ``M(λ)``, the gradient a unit's output receives at neuromodulator level λ.

    With Λ the inversion level and θ the maximum, odd about Λ, ``M(2Λ − λ) = −M(λ)``::

        M = θ − (θ − 1)(4λ − Λ)² / Λ²    for λ ≤ Λ/2
        M = 4 (λ − Λ)² / Λ²              for Λ/2 < λ ≤ Λ

    so ``M(0) = 1``, ``M(Λ/4) = θ``, ``M(Λ/2) = 1``, ``M(Λ) = 0``. M is a *gradient*: descending it, a low
    level depresses the synapses onto a unit (LTD) and a high level potentiates them (LTP).

    The curve is defined on [0, 2Λ], where ``|M| ≤ θ``. A level outside (possible only with Λ below ½) keeps
    the value at the nearer end: the quadratic would otherwise leave the bound and reverse its sign.

    Args:
        level: λ, any shape.
        inversion: Λ (``lambda_inv``), the level where LTD turns to LTP, above 0.
        maximum: θ (``theta_max``), the largest modulation, at least 1.

    Returns:
        M(λ), the shape of `level`.

    Raises:
        ValueError: `inversion` is not positive, or `maximum` is below 1.

    Source: Zhang et al. 2023.

    Example:
        >>> plasticity_modulation(torch.tensor([0.0, 0.125, 0.25, 0.5, 0.875, 1.0]))
        tensor([ 1.0000,  1.2000,  1.0000,  0.0000, -1.2000, -1.0000])
    """
    if not inversion > 0:
        raise ValueError(f"inversion must be positive, got {inversion}.")
    if not maximum >= 1:
        raise ValueError(f"maximum must be at least 1 (the value of the curve at level 0), got {maximum}.")
    # Distance from the inversion level in units of it: 0 at Λ, 1 at both ends; the curve is odd in it.
    offset = ((inversion - level) / inversion).clamp(-1.0, 1.0)
    distance = offset.abs()
    outer = maximum - (maximum - 1.0) * (3.0 - 4.0 * distance).square()
    inner = 4.0 * distance.square()
    return torch.where(distance >= 0.5, outer, inner) * offset.sign()


def modulation_table(code: Tensor, projection: Tensor, *, inversion: float = 0.5, maximum: float = 1.2) -> Tensor:
    """``M`` of every class at every unit: computed once, then indexed by the labels of a batch.

    Args:
        code: (classes, 2 * classes), from `expectation_code`.
        projection: (2 * classes, units), from `neuromodulator_projection`.
        inversion: Λ, as in `plasticity_modulation`.
        maximum: θ, as in `plasticity_modulation`.

    Returns:
        (classes, units): ``table[labels]`` is the modulation of a batch, (batch, units).

    Raises:
        ValueError: the shapes do not match, or a parameter of the curve is out of range.

    Source: Zhang et al. 2023.

    Example:
        >>> table = modulation_table(expectation_code(10), neuromodulator_projection(10, 100))
        >>> table[torch.tensor([3, 3, 7])].shape
        torch.Size([3, 100])
    """
    return plasticity_modulation(neuromodulator_level(code, projection), inversion=inversion, maximum=maximum)

"""Projections that keep new learning away from old inputs: least squares and Hebbian subspaces."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_meta.functional._eigen import symmetric_eigen


def shrink_projector(projector: Tensor, inputs: Tensor, *, regularization: float) -> Tensor:
    r"""Removes the span of some inputs from a projector, by recursive least squares in one block.

    .. math:: P' = P - P X^T (α I + X P X^T)^{-1} X P

    which is the recursion of one row x after another, :math:`P ← P - P x x^T P / (α + x^T P x)`, for all rows at once,
    and does not depend on their order. From P = I it gives :math:`P = α (α I + X^T X)^{-1}`: near 0 along inputs of
    more than α in squared length, 1 across them.

    Old directions shrink to α / (α + Σ x²) by cancellation. In single precision this leaves an error of about 1e-6, and
    where that share should be below about 1e-10, P is no longer positive definite and the next block goes on from the
    nearest matrix that is; in double precision the error is about 1e-14. So call this in double precision. P stays
    symmetric to the last bit.

    Args:
        projector: P, symmetric, (..., width, width).
        inputs: X, (..., rows, width), of the same type. If there are more rows than columns, they are first condensed to
            ``width`` rows with the same XᵀX.
        regularization: α, above 0, in squared units of the inputs.

    Returns:
        P', (..., width, width).

    Raises:
        ValueError: shapes that do not match, or α not above 0.

    Source:
        Zeng, Chen, Cui, Yu, Nature Machine Intelligence 1, 2019 (arXiv 1810.01256), the recursion of P; the block form
        is Woodbury's identity.

    Example:
        >>> shrink_projector(torch.eye(2), torch.tensor([[3.0, 0.0]]), regularization=1.0)
        tensor([[0.1000, 0.0000],
                [0.0000, 1.0000]])
    """
    if projector.dim() < 2 or projector.shape[-2] != projector.shape[-1]:
        raise ValueError(f"a projector is square, got {tuple(projector.shape)}")
    *leading, width = projector.shape[:-1]
    if inputs.dim() != projector.dim() or [*inputs.shape[:-2]] != leading or inputs.shape[-1] != width:
        shape = ", ".join(map(str, [*leading, "rows", width]))
        raise ValueError(f"inputs must be ({shape}) for this projector, got {tuple(inputs.shape)}")
    if not regularization > 0:
        raise ValueError(f"regularization must be above 0, got {regularization}")
    if inputs.shape[-2] > inputs.shape[-1]:
        inputs = torch.linalg.qr(inputs, mode="r").R
    projected = inputs @ projector
    inner = projected @ inputs.mT
    inner.diagonal(dim1=-2, dim2=-1).add_(regularization)
    factor, failures = torch.linalg.cholesky_ex(inner)
    if bool(failures.any()):
        # Rounding has taken eigenvalues, which are at least α, below 0: they are put back.
        values, vectors = symmetric_eigen(inner)
        half = (vectors * values.clamp_min(regularization).rsqrt().unsqueeze(-2)).mT @ projected
    else:
        half = torch.linalg.solve_triangular(factor, projected, upper=False)
    shrunk = projector - half.mT @ half
    return (shrunk + shrunk.mT) / 2


def gram_rows(gram: Tensor) -> Tensor:
    """Rows X whose XᵀX equals a given positive semidefinite matrix.

    Args:
        gram: (..., width, width), symmetric; eigenvalues below 0 are rounding and count as 0.

    Returns:
        (..., width, width), orthogonal rows.

    Example:
        >>> rows = gram_rows(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
        >>> rows.T @ rows
        tensor([[4., 0.],
                [0., 9.]])
    """
    values, vectors = symmetric_eigen(gram)
    return values.clamp_min(0).sqrt().unsqueeze(-1) * vectors.mT


def subspace_activity(weights: Tensor, inputs: Tensor, *, spike_levels: int | None, spike_range: float) -> Tensor:
    r"""Activity of the lateral neurons: y = Hx, or the signed firing rate that approximates it.

    .. math:: y = H x, \qquad y_{spiking} = \frac{s}{T}\, round\!\left(\frac{T}{s}\, clip(Hx, -s, s)\right)

    Args:
        weights: H, (..., neurons, width).
        inputs: (..., rows, width).
        spike_levels: T, how many spikes (of either sign) a neuron can fire; None for a neuron that does not spike.
        spike_range: s, the activity at which it fires all of them.

    Returns:
        (..., rows, neurons).

    Source:
        Xiao et al., ICLR 2024 (arXiv 2402.11984), lateral neurons, linear and spiking.

    Example:
        >>> subspace_activity(torch.eye(2), torch.tensor([[0.3, 9.0]]), spike_levels=4, spike_range=2.0)
        tensor([[0.5000, 2.0000]])
    """
    activity = inputs @ weights.mT
    if spike_levels is None:
        return activity
    return activity.clamp(-spike_range, spike_range).mul(spike_levels / spike_range).round() * (
        spike_range / spike_levels
    )


def hebbian_subspace_step(
    weights: Tensor,
    inputs: Tensor,
    residual: Tensor,
    *,
    learning_rate: float | Tensor,
    spike_levels: int | None = None,
    spike_range: float = 20.0,
) -> Tensor:
    r"""One step of lateral neurons towards the principal subspace of their inputs (Oja's subspace rule).

    .. math:: ΔH = η\, \overline{y\, (r - H^T y)^T}, \qquad y = H x

    The first term is Hebbian; the second, through the neurons' feedback, is anti-Hebbian. With r = x, the rows of H
    converge to an orthonormal basis of the principal subspace of the uncentred second moment; with r the part of x that
    other, fixed neurons leave unexplained, to one of the principal subspace of that part.

    Args:
        weights: H, (..., neurons, width).
        inputs: x, (..., rows, width).
        residual: r, (..., rows, width).
        learning_rate: η, a number or (..., 1, 1); the rule is stable while η is below 1 / the largest eigenvalue of the
            second moment.
        spike_levels: see `subspace_activity`.
        spike_range: see `subspace_activity`.

    Returns:
        ΔH, (..., neurons, width).

    Source:
        Xiao et al., ICLR 2024, Hebbian and anti-Hebbian learning of lateral connections; Oja, 1989.

    Example:
        >>> h, x = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> hebbian_subspace_step(h, x, x, learning_rate=0.5)
        tensor([[0.0000, 0.5000]])
    """
    activity = subspace_activity(weights, inputs, spike_levels=spike_levels, spike_range=spike_range)
    unexplained = less_product(residual, activity, weights)
    return (activity.mT @ unexplained).mul_(learning_rate / inputs.shape[-2])


def less_product(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``matrix - left @ right`` in one kernel, for matrices and for batches of them.

    Args:
        matrix: (..., rows, columns), with at most one leading dimension.
        left: (..., rows, inner).
        right: (..., inner, columns).

    Returns:
        (..., rows, columns).

    Example:
        >>> less_product(torch.tensor([[5.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0]]))
        tensor([[3.]])
    """
    product = torch.addmm if matrix.dim() == 2 else torch.baddbmm
    return product(matrix, left, right, alpha=-1)

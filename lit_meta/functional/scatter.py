"""Symmetric matrices kept as a packed one and a few outer products, and linear systems of them in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lit_meta.functional.packed import (
    pack,
    packed_cholesky_,
    packed_cholesky_solve,
    packed_diagonal,
    packed_features,
    packed_panels,
    packed_product,
    symmetric_block,
    unpack,
)

# Up to this many features a system is solved by a factor in the precision of the matrix; it takes as much memory as the matrix.
_DIRECT = 4096
# Added to the unit diagonal so that the factorisation succeeds in single precision, and what is tried after it.
_SHIFTS = (3e-6, 1e-4, 3e-3)
_STEPS = 300
# Of the solution, relative: what the head's single precision cannot tell.
_ERROR = 1e-9


class Scatter(NamedTuple):
    """``P + Σ_r w_r v_r v_rᵀ``, never multiplied out.

    It computes in the precision of the vectors; P may be stored in a lower one and is then widened a few rows at a time.

    Attributes:
        packed: P, see `lit_meta.functional.packed`.
        vectors: v, (terms, features).
        weights: w, (terms,).
    """

    packed: Tensor
    vectors: Tensor
    weights: Tensor

    @classmethod
    def of(cls, matrix: Tensor, dtype: torch.dtype | None = None) -> Scatter:
        """Of a packed matrix, or of a square one, of which only the lower triangle is read.

        It computes in ``dtype``; None: in the matrix's own.
        """
        packed = matrix if matrix.dim() == 1 else pack(matrix)
        return cls(packed, packed.new_zeros(0, packed_features(packed), dtype=dtype), packed.new_zeros(0, dtype=dtype))

    def plus(self, vectors: Tensor, weights: Tensor) -> Scatter:
        """With further outer products."""
        return Scatter(self.packed, torch.cat([self.vectors, vectors]), torch.cat([self.weights, weights]))

    @property
    def features(self) -> int:
        """Rows of the matrix."""
        return packed_features(self.packed)

    def diagonal(self) -> Tensor:
        """(features,)."""
        return packed_diagonal(self.packed).to(self.vectors.dtype) + self.weights @ self.vectors.square()

    def product(self, right: Tensor) -> Tensor:
        """With (features, columns)."""
        return packed_product(self.packed, right) + self.vectors.T @ (
            self.weights.unsqueeze(1) * (self.vectors @ right)
        )

    def panels(self) -> Iterator[tuple[int, int, Tensor]]:
        """Copies of some rows at a time, up to the diagonal block: start, stop, and (rows, stop)."""
        weighted = self.vectors * self.weights.unsqueeze(1)
        for start, stop, left, block in packed_panels(self.packed):
            rows = torch.cat([left, symmetric_block(block)], 1).to(weighted.dtype)
            yield start, stop, rows.addmm_(weighted[:, start:stop].T, self.vectors[:, :stop])

    def dense(self) -> Tensor:
        """(features, features).

        Example:
            >>> Scatter.of(torch.eye(2)).plus(torch.ones(1, 2), torch.tensor([2.0])).dense()
            tensor([[3., 2.],
                    [2., 3.]])
        """
        return (
            unpack(self.packed).to(self.vectors.dtype).addmm_(self.vectors.T, self.vectors * self.weights.unsqueeze(1))
        )

    def square(self) -> Tensor:
        """The sum of the squares of all elements."""
        total = self.vectors.new_zeros(())
        for start, _, rows in self.panels():
            total += 2 * rows[:, :start].square().sum() + rows[:, start:].square().sum()
        return total


def solve_regularized(scatter: Scatter, ridge: float, right: Tensor) -> Tensor:
    """``(S + ridge I)⁻¹ right``.

    Up to 4,096 features by a Cholesky factor in the precision that S computes in. Of more, the factor is of single precision,
    which takes half the time and half the memory; it preconditions conjugate gradients in the precision of S, until the
    solution's error, as the factor measures it, is below 1e-9 of the solution. Should they not get there, the factor is
    computed in the precision of S after all. S itself is only read, and no square matrix is ever made.

    Args:
        scatter: S, positive semidefinite up to rounding.
        ridge: above 0.
        right: (features, columns).

    Returns:
        (features, columns).

    Raises:
        ValueError: a ridge that is not above 0, or too small for S to be factorised in its precision.

    Example:
        >>> solve_regularized(Scatter.of(torch.eye(2)), 1.0, torch.tensor([[2.0], [4.0]]))
        tensor([[1.],
                [2.]])
    """
    if not ridge > 0:
        raise ValueError(f"the ridge must be above 0, got {ridge}")
    solution = _preconditioned(scatter, ridge, right) if scatter.features > _DIRECT else None
    if solution is not None:
        return solution
    factor = _scaled_copy(scatter, torch.ones_like(right[:, 0]), ridge, scatter.vectors.dtype)
    if not packed_cholesky_(factor):
        raise ValueError(
            f"the features' second moment cannot be factorised with a ridge of {ridge:.3g}: it is too small for "
            f"{scatter.packed.dtype}; use a larger ridge"
        )
    return packed_cholesky_solve(factor, right)


def _preconditioned(scatter: Scatter, ridge: float, right: Tensor) -> Tensor | None:
    """By conjugate gradients on the system scaled to a unit diagonal; None if they do not converge."""
    scale = (scatter.diagonal() + ridge).clamp(min=ridge).rsqrt()
    factor = _single_factor(scatter, ridge, scale)
    if factor is None:
        return None
    rows = scale.unsqueeze(1)

    def matrix(vectors: Tensor) -> Tensor:
        scaled = rows * vectors
        return rows * (scatter.product(scaled) + ridge * scaled)

    def preconditioner(vectors: Tensor) -> Tensor:
        # A column may be as small as the square of single precision; its direction counts.
        size = vectors.norm(dim=0).clamp(min=torch.finfo(vectors.dtype).tiny)
        return packed_cholesky_solve(factor, (vectors / size).to(factor.dtype)).to(vectors.dtype) * size

    residual = rows * right
    solution = torch.zeros_like(residual)
    correction = preconditioner(residual)
    direction, energy = correction, (residual * correction).sum(0)
    for _ in range(_STEPS):
        image = matrix(direction)
        curvature = (direction * image).sum(0)
        if bool((curvature < 0).any()):
            return None  # Rounding has left S indefinite.
        step = _ratio(energy, curvature)
        solution += step * direction
        residual -= step * image
        correction = preconditioner(residual)
        if bool((correction.norm(dim=0) <= _ERROR * solution.norm(dim=0)).all()):
            return rows * solution
        energy, before = (residual * correction).sum(0), energy
        direction = correction + _ratio(energy, before) * direction
    return None


def _single_factor(scatter: Scatter, ridge: float, scale: Tensor) -> Tensor | None:
    factor: Tensor | None = None
    for shift in _SHIFTS:
        factor = None  # Released before the next one is made.
        factor = _scaled_copy(scatter, scale, ridge, torch.float32, shift)
        if packed_cholesky_(factor):
            return factor
    return None


def _scaled_copy(scatter: Scatter, scale: Tensor, ridge: float, dtype: torch.dtype, shift: float = 0.0) -> Tensor:
    """``D (S + ridge I) D + shift I``, packed."""
    copy = torch.empty_like(scatter.packed, dtype=dtype)
    for (start, stop, rows), panel in zip(scatter.panels(), packed_panels(copy), strict=True):
        rows.mul_(scale[start:stop].unsqueeze(1)).mul_(scale[:stop])
        rows[:, start:].diagonal().add_(ridge * scale[start:stop].square() + shift)
        panel.left.copy_(rows[:, :start])
        panel.block.copy_(rows[:, start:][torch.tril_indices(stop - start, stop - start, device=rows.device).unbind()])
    return copy


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where there is nothing left to divide."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))

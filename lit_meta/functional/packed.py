"""Symmetric matrices of which one triangle is stored, in panels of rows: sums, products and Cholesky factors in place.

A packed matrix is one vector of ``features · (features + 1) / 2`` numbers. It holds the lower triangle in panels of
`PANEL` rows, one after the other: first the panel's part to the left of its diagonal block, a plain matrix (rows, columns
to the left), then the lower triangle of the diagonal block, row by row. So nearly all of it is plain matrices, which
matrix products read and write where they are, and no second triangle is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of a panel. It is part of the format: files hold packed matrices.
PANEL = 256


class Panel(NamedTuple):
    """Views of some rows of a packed matrix.

    Attributes:
        start: the first row.
        stop: the row after the last one.
        left: (rows, start), the rows up to the diagonal block.
        block: (rows · (rows + 1) / 2,), the lower triangle of the diagonal block.
    """

    start: int
    stop: int
    left: Tensor
    block: Tensor


def packed_size(features: int) -> int:
    """Numbers in a packed matrix.

    Example:
        >>> packed_size(3)
        6
    """
    return features * (features + 1) // 2


def packed_features(packed: Tensor) -> int:
    """Rows of a packed matrix.

    Raises:
        ValueError: the length is not that of a triangle.

    Example:
        >>> packed_features(torch.zeros(6))
        3
    """
    features = (math.isqrt(8 * packed.numel() + 1) - 1) // 2
    if packed.dim() != 1 or packed_size(features) != packed.numel():
        raise ValueError(f"a packed matrix is a vector of n (n + 1) / 2 numbers, got shape {tuple(packed.shape)}")
    return features


def packed_panels(packed: Tensor) -> Iterator[Panel]:
    """The panels of a packed matrix, from the top; writing to them writes to the matrix."""
    features, offset = packed_features(packed), 0
    for start in range(0, features, PANEL):
        stop = min(start + PANEL, features)
        corner = offset + (stop - start) * start
        after = corner + packed_size(stop - start)
        yield Panel(start, stop, packed[offset:corner].view(stop - start, start), packed[corner:after])
        offset = after


def pack(matrix: Tensor) -> Tensor:
    """The packed form of a symmetric matrix, of which only the lower triangle is read.

    Args:
        matrix: (features, features).

    Example:
        >>> pack(torch.tensor([[1.0, 9.0], [2.0, 3.0]]))
        tensor([1., 2., 3.])
    """
    packed = matrix.new_empty(packed_size(len(matrix)))
    for panel in packed_panels(packed):
        panel.left.copy_(matrix[panel.start : panel.stop, : panel.start])
        panel.block.copy_(_lower(matrix[panel.start : panel.stop, panel.start : panel.stop]))
    return packed


def unpack(packed: Tensor) -> Tensor:
    """The full matrix, (features, features).

    Example:
        >>> unpack(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[1., 2.],
                [2., 3.]])
    """
    features = packed_features(packed)
    matrix = packed.new_empty(features, features)
    for start, stop, left, block in packed_panels(packed):
        matrix[start:stop, :start] = left
        matrix[:start, start:stop] = left.T
        matrix[start:stop, start:stop] = symmetric_block(block)
    return matrix


def symmetric_block(block: Tensor) -> Tensor:
    """The full diagonal block of a panel, (rows, rows).

    Example:
        >>> symmetric_block(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[1., 2.],
                [2., 3.]])
    """
    lower = _triangle(block)
    return lower + lower.tril(-1).T


def packed_diagonal(packed: Tensor) -> Tensor:
    """The diagonal, (features,).

    Example:
        >>> packed_diagonal(torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 3.])
    """
    diagonals = [panel.block[_ends(panel.stop - panel.start, packed.device)] for panel in packed_panels(packed)]
    return torch.cat(diagonals) if diagonals else packed.new_empty(0)


def add_outer_products_(packed: Tensor, features: Tensor, weights: Tensor | float = 1.0) -> None:
    r"""Adds :math:`\sum_i w_i h_i h_i^T` to a packed matrix.

    The products are summed in the precision of ``features``, and the sum is added and rounded once in the higher of both
    precisions; only the lower triangle is computed.

    Args:
        packed: of (features, features), changed in place; its precision may be another one.
        features: h, (samples, features).
        weights: w, one number or (samples,).

    Example:
        >>> packed = torch.zeros(3, dtype=torch.float64)
        >>> add_outer_products_(packed, torch.tensor([[1.0, 2.0]]))
        >>> packed
        tensor([1., 2., 4.], dtype=torch.float64)
    """
    alpha = weights if isinstance(weights, (int, float)) else 1.0
    scaled = features if isinstance(weights, (int, float)) else features * weights.to(features).unsqueeze(1)
    for start, stop, left, block in packed_panels(packed):
        rows = scaled[:, start:stop].T
        corner = _lower(rows @ features[:, start:stop])
        block.add_(corner, alpha=alpha)
        if features.dtype == packed.dtype == torch.float64:
            left.addmm_(rows, features[:, :start], alpha=alpha)
        else:
            left.add_(rows @ features[:, :start], alpha=alpha)


def packed_product(packed: Tensor, right: Tensor) -> Tensor:
    """The product of a packed matrix with another one.

    Args:
        packed: of (features, features); of single precision it is widened, a panel at a time, to that of ``right``.
        right: (features, columns).

    Returns:
        (features, columns).

    Example:
        >>> packed_product(torch.tensor([1.0, 2.0, 3.0]), torch.eye(2))
        tensor([[1., 2.],
                [2., 3.]])
    """
    product = torch.zeros_like(right)
    for start, stop, left, block in packed_panels(packed):
        rows = left.to(right.dtype)
        product[start:stop].addmm_(rows, right[:start])
        product[:start].addmm_(rows.T, right[start:stop])
        product[start:stop].addmm_(symmetric_block(block).to(right.dtype), right[start:stop])
    return product


def packed_cholesky_(packed: Tensor) -> bool:
    """Replaces a packed positive definite matrix by its lower Cholesky factor, in the same storage.

    Args:
        packed: changed in place; undefined afterwards if the matrix is not positive definite.

    Returns:
        Whether the matrix is positive definite in its precision.

    Example:
        >>> packed = torch.tensor([4.0, 2.0, 5.0])
        >>> packed_cholesky_(packed), packed
        (True, tensor([2., 1., 2.]))
    """
    panels: list[Panel] = []
    for panel in packed_panels(packed):
        for start, stop, left, block in panels:
            part = panel.left[:, start:stop]
            part.addmm_(panel.left[:, :start], left.T, alpha=-1)
            part.copy_(torch.linalg.solve_triangular(_triangle(block).T, part, upper=True, left=False))
        corner = symmetric_block(panel.block).addmm_(panel.left, panel.left.T, alpha=-1)
        factor, failed = torch.linalg.cholesky_ex(corner)
        if int(failed):
            return False
        panel.block.copy_(_lower(factor))
        panels.append(panel)
    return True


def packed_cholesky_solve(factor: Tensor, right: Tensor) -> Tensor:
    """``(L Lᵀ)⁻¹ right``.

    Args:
        factor: L, packed, from `packed_cholesky_`.
        right: (features, columns).

    Returns:
        (features, columns).

    Example:
        >>> packed_cholesky_solve(torch.tensor([2.0, 1.0, 2.0]), torch.tensor([[4.0], [2.0]]))
        tensor([[1.],
                [0.]])
    """
    solution, panels = right.clone(), list(packed_panels(factor))
    for start, stop, left, block in panels:
        part = solution[start:stop].addmm_(left, solution[:start], alpha=-1)
        part.copy_(torch.linalg.solve_triangular(_triangle(block), part, upper=False))
    for start, stop, left, block in reversed(panels):
        part = solution[start:stop]
        part.copy_(torch.linalg.solve_triangular(_triangle(block).T, part, upper=True))
        solution[:start].addmm_(left.T, part, alpha=-1)
    return solution


def _lower(matrix: Tensor) -> Tensor:
    """The lower triangle of a square matrix, row by row."""
    row, column = torch.tril_indices(*matrix.shape, device=matrix.device)
    return matrix[row, column]


def _triangle(block: Tensor) -> Tensor:
    """The lower triangle as a square matrix, zero above."""
    rows = packed_features(block)
    matrix = block.new_zeros(rows, rows)
    row, column = torch.tril_indices(rows, rows, device=block.device)
    matrix[row, column] = block
    return matrix


def _ends(rows: int, device: torch.device) -> Tensor:
    """Where the rows of a triangle end, which is where its diagonal is."""
    return torch.arange(1, rows + 1, device=device).cumsum(0) - 1

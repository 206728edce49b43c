"""Eigenvalues of positive semidefinite matrices, also where LAPACK's first algorithm gives up."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order, (..., width), and eigenvectors in the columns of (..., width, width).

    `torch.linalg.eigh`; where that does not converge, as for some matrices of a low rank with some versions of MKL, the
    singular values and left singular vectors, which are the same.

    Args:
        matrix: symmetric and positive semidefinite up to rounding, (..., width, width).

    Example:
        >>> symmetric_eigen(torch.diag(torch.tensor([9.0, 4.0])))[0]
        tensor([4., 9.])
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        left, sizes, right = torch.linalg.svd(matrix)
        values = sizes * (left * right.mT).sum(-2).sign()
        values, order = values.sort(dim=-1)
        vectors = left.gather(-1, order.unsqueeze(-2).expand_as(left))
    return values, vectors

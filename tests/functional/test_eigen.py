"""Eigenvalues where LAPACK's first algorithm gives up are those that it would have given."""

from __future__ import annotations

import pytest
import torch

from lit_meta.functional._eigen import symmetric_eigen


@pytest.mark.parametrize("shape", ((6, 2), (3, 4, 5)))
def test_without_the_first_algorithm_the_result_is_the_same(shape, monkeypatch):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = rows @ rows.mT  # Of a low rank where it is wider than long.
    expected, _ = symmetric_eigen(matrix)

    def gives_up(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    values, vectors = symmetric_eigen(matrix)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close((vectors * values.unsqueeze(-2)) @ vectors.mT, matrix, rtol=1e-10, atol=1e-12)
    eye = torch.eye(shape[-2], dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(vectors.mT @ vectors, eye, rtol=1e-10, atol=1e-12)

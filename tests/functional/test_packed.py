"""Packed matrices and systems of them against dense ones in float64, over several panels."""

from __future__ import annotations

import pytest
import torch

from lit_meta.functional import packed, scatter


@pytest.fixture(autouse=True)
def small_panels(monkeypatch):
    monkeypatch.setattr(packed, "PANEL", 8)


def features(n=50, width=29, dtype=torch.float64, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("width", (1, 7, 8, 9, 29))
def test_packing_keeps_half_and_loses_nothing(width):
    h = features(width=width)
    matrix = h.T @ h
    flat = packed.pack(matrix)
    assert flat.numel() == width * (width + 1) // 2
    assert torch.equal(packed.unpack(flat), torch.tril(matrix) + torch.tril(matrix, -1).T)
    assert torch.equal(packed.packed_diagonal(flat), matrix.diagonal())


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_sums_products_factors_and_solutions_are_those_of_the_full_matrix(dtype):
    h, right = features(dtype=dtype), features(29, 3, seed=1)
    flat = torch.zeros(packed.packed_size(29), dtype=torch.float64)
    weights = torch.linspace(0.5, 1.0, 50)
    packed.add_outer_products_(flat, h, weights)
    packed.add_outer_products_(flat, h, -0.25)
    matrix = h.double().T @ ((weights.double() - 0.25).unsqueeze(1) * h.double())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(packed.unpack(flat), matrix, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(packed.packed_product(flat, right), packed.unpack(flat) @ right)
    matrix = packed.unpack(flat)
    assert packed.packed_cholesky_(flat)
    lower = packed.unpack(flat).tril()
    torch.testing.assert_close(lower @ lower.T, matrix)
    torch.testing.assert_close(packed.packed_cholesky_solve(flat, right), torch.linalg.solve(matrix, right))


def test_a_matrix_that_is_not_positive_is_not_factorised():
    matrix = torch.eye(20).double()
    matrix[17, 17] = -1.0
    assert not packed.packed_cholesky_(packed.pack(matrix))


@pytest.mark.parametrize("ridge", (1.0, 1e-3, 1e-6))
def test_preconditioned_solutions_are_those_of_a_dense_factorisation(ridge, monkeypatch):
    monkeypatch.setattr(scatter, "_DIRECT", 4)
    h = features(200) * torch.logspace(0, -2, 29) + 3.0
    mean = h.mean(0, keepdim=True)
    matrix = scatter.Scatter.of(h.T @ h).plus(mean, torch.tensor([-200.0]).double())
    dense = (h - mean).T @ (h - mean)
    torch.testing.assert_close(matrix.dense(), dense)
    torch.testing.assert_close(matrix.square(), dense.square().sum())
    right = features(29, 3, seed=1)
    expected = torch.linalg.solve(dense + ridge * torch.eye(29), right)
    before = matrix.packed.clone()
    solution = scatter.solve_regularized(matrix, ridge, right)
    assert float((solution - expected).norm() / expected.norm()) < 1e-7
    assert torch.equal(matrix.packed, before)


def test_where_conjugate_gradients_fail_the_factor_is_computed_after_all(monkeypatch):
    monkeypatch.setattr(scatter, "_DIRECT", 4)
    monkeypatch.setattr(scatter, "_STEPS", 0)
    h, right = features(200), features(29, 3, seed=1)
    solution = scatter.solve_regularized(scatter.Scatter.of(h.T @ h), 0.1, right)
    torch.testing.assert_close(solution, torch.linalg.solve(h.T @ h + 0.1 * torch.eye(29), right))
    with pytest.raises(ValueError, match=r"too small for torch\.float64; use a larger ridge"):
        scatter.solve_regularized(scatter.Scatter.of(-h.T @ h), 0.1, right)


def test_a_column_of_zeros_gives_zeros(monkeypatch):
    monkeypatch.setattr(scatter, "_DIRECT", 4)
    h, right = features(200), features(29, 3, seed=1)
    right[:, 1] = 0.0
    solution = scatter.solve_regularized(scatter.Scatter.of(h.T @ h), 0.1, right)
    assert not solution[:, 1].any()
    torch.testing.assert_close(solution, torch.linalg.solve(h.T @ h + 0.1 * torch.eye(29), right), atol=1e-8, rtol=1e-6)


def test_a_million_samples_are_summed_in_float64_because_float32_loses_two_digits():
    """Products are of float32 either way; what is stored makes the difference."""
    stored = {dtype: torch.zeros(21, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    exact, generator = torch.zeros(21, dtype=torch.float64), torch.Generator().manual_seed(0)
    for _ in range(1000):
        h = torch.rand(1000, 6, generator=generator) - 0.3
        for total in stored.values():
            packed.add_outer_products_(total, h)
        packed.add_outer_products_(exact, h.double())
    error = {dtype: float(((total.double() - exact) / exact).abs().max()) for dtype, total in stored.items()}
    assert error[torch.float64] < 1e-7
    assert error[torch.float32] > 20 * error[torch.float64]


@pytest.mark.parametrize("direct", (4096, 4))
def test_a_matrix_stored_in_single_precision_is_computed_with_in_double(direct, monkeypatch):
    monkeypatch.setattr(scatter, "_DIRECT", direct)
    h, right = features(200) + 3.0, features(29, 3, seed=1)
    flat = torch.zeros(packed.packed_size(29), dtype=torch.float32)
    packed.add_outer_products_(flat, h)
    mean = h.mean(0, keepdim=True)
    matrix = scatter.Scatter.of(flat, torch.float64).plus(mean, torch.tensor([-200.0]).double())
    dense = packed.unpack(flat).double() - 200 * mean.T @ mean
    for mine, expected in (
        (matrix.dense(), dense),
        (matrix.diagonal(), dense.diagonal()),
        (matrix.product(right), dense @ right),
        (matrix.square(), dense.square().sum()),
        (scatter.solve_regularized(matrix, 1.0, right), torch.linalg.solve(dense + torch.eye(29), right)),
    ):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, expected, atol=1e-8, rtol=1e-8)
    with pytest.raises(ValueError, match=r"too small for torch\.float32; use a larger ridge"):
        scatter.solve_regularized(scatter.Scatter.of(-flat, torch.float64), 0.1, right)

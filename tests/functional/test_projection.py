"""Projectors and Hebbian subspaces against closed forms and double-precision references."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lit_meta.functional import gram_rows, hebbian_subspace_step, shrink_projector, subspace_activity


def one_by_one(projector, inputs, regularization):
    """The recursion as published, one row after another."""
    for x in inputs:
        k = projector @ x / (regularization + x @ projector @ x)
        projector = projector - torch.outer(k, x @ projector)
    return projector


@pytest.mark.parametrize("rows", (1, 4, 6, 30))
def test_a_block_is_the_recursion_over_its_rows_and_the_closed_form(rows):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    identity = torch.eye(6, dtype=torch.float64)
    block = shrink_projector(identity, x, regularization=0.3)
    torch.testing.assert_close(block, one_by_one(identity, x, 0.3), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(block, 0.3 * torch.linalg.inv(0.3 * identity + x.T @ x), rtol=1e-9, atol=1e-12)
    halves = shrink_projector(
        shrink_projector(identity, x[rows // 2 :], regularization=0.3), x[: rows // 2], regularization=0.3
    )
    torch.testing.assert_close(block, halves, rtol=1e-9, atol=1e-12)


def test_by_hand():
    found = shrink_projector(torch.eye(2), torch.tensor([[3.0, 4.0]]), regularization=25.0)
    torch.testing.assert_close(found, torch.tensor([[1 - 9 / 50, -12 / 50], [-12 / 50, 1 - 16 / 50]]))


def test_as_alpha_vanishes_it_is_the_projector_onto_the_complement():
    x = torch.tensor([[1.0, 2.0, 2.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    found = shrink_projector(torch.eye(3, dtype=torch.float64), x, regularization=1e-12)
    expected = torch.eye(3, dtype=torch.float64) - torch.linalg.pinv(x) @ x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found @ found, found, rtol=0, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.floats(1e-3, 10.0), st.integers(0, 10_000))
def test_it_stays_symmetric_and_between_zero_and_one(rows, regularization, seed):
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = shrink_projector(torch.eye(5, dtype=torch.float64), x, regularization=regularization)
    assert torch.equal(found, found.T)
    values = torch.linalg.eigvalsh(found)
    assert -1e-12 <= values.min() <= values.max() <= 1 + 1e-12


def recursion_on_digits(scale, regularization, dtype):
    """P after all digits, and the exact one by singular values."""
    x = scale * torch.tensor(load_digits().data) / 16
    x = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    _, values, vectors = torch.linalg.svd(x, full_matrices=False)
    closed = vectors.T @ torch.diag(values**2 / (regularization + values**2)) @ vectors
    projector = torch.eye(65, dtype=dtype)
    for block in x.to(dtype).split(32):
        projector = shrink_projector(projector, block, regularization=regularization)
    return projector, torch.eye(65, dtype=x.dtype) - closed


@pytest.mark.parametrize(("scale", "regularization"), ((1, 1.0), (1, 1e-2), (10, 1e-2), (10, 1e-4)))
def test_double_precision_is_exact_over_many_blocks(scale, regularization):
    found, exact = recursion_on_digits(scale, regularization, torch.float64)
    assert torch.linalg.matrix_norm(found - exact, 2) < 1e-12
    assert torch.linalg.eigvalsh(found).min() > -1e-13


def test_single_precision_is_off_by_a_millionth_and_breaks_down_where_alpha_is_small():
    """The reason why OWM keeps P in double precision."""
    found, exact = recursion_on_digits(1, 1e-2, torch.float32)
    assert 1e-8 < torch.linalg.matrix_norm(found.double() - exact, 2) < 1e-5
    with pytest.raises(torch.linalg.LinAlgError):
        recursion_on_digits(10, 1e-4, torch.float32)


def test_gram_rows_give_the_gram_matrix_back_also_where_it_is_singular():
    x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], dtype=torch.float64)
    rows = gram_rows(x.T @ x)
    torch.testing.assert_close(rows.T @ rows, x.T @ x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("projector", "inputs", "regularization", "message"),
    (
        (torch.ones(2, 3), torch.ones(1, 3), 1.0, "square"),
        (torch.eye(2), torch.ones(1, 3), 1.0, r"must be \(rows, 2\)"),
        (torch.eye(2), torch.ones(1, 2), 0.0, "above 0"),
    ),
)
def test_bad_projectors(projector, inputs, regularization, message):
    with pytest.raises(ValueError, match=message):
        shrink_projector(projector, inputs, regularization=regularization)


def test_a_hebbian_step_sample_by_sample():
    generator = torch.Generator().manual_seed(1)
    h, x, r = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (2, 7, 7))
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for xs, rs in zip(x, r, strict=True):
        y = h @ xs
        expected += 0.1 * torch.outer(y, rs - h.T @ y) / 7
    torch.testing.assert_close(hebbian_subspace_step(h, x, r, learning_rate=0.1), expected)


def test_hebbian_learning_settles_in_the_principal_subspace():
    generator = torch.Generator().manual_seed(2)
    spread = torch.tensor([3.0, 2.0, 1.5, 0.4, 0.2, 0.1], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(400, 6, generator=generator, dtype=torch.float64) * spread @ basis.T
    h = torch.linalg.qr(torch.randn(6, 3, generator=generator, dtype=torch.float64)).Q.T.contiguous()
    for _ in range(3000):
        h += hebbian_subspace_step(h, x, x, learning_rate=0.05)
    principal = torch.linalg.svd(x).Vh[:3]
    torch.testing.assert_close(h.T @ h, principal.T @ principal, rtol=0, atol=1e-6)
    torch.testing.assert_close(h @ h.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_spiking_activity_is_clipped_and_comes_in_levels():
    x = torch.tensor([[0.26], [-7.0], [1.9]])
    found = subspace_activity(torch.ones(1, 1), x, spike_levels=4, spike_range=2.0)
    assert found.flatten().tolist() == [0.5, -2.0, 2.0]
    many = subspace_activity(torch.ones(1, 1), x[[0, 2]], spike_levels=100_000, spike_range=2.0)
    torch.testing.assert_close(many, x[[0, 2]], rtol=0, atol=2e-5)

"""Binary signs, their straight-through derivatives, and the factor on shrinking steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from lit_meta.functional import binary_sign, shrinking_step_factor


def test_values_are_exactly_plus_or_minus_one_and_zero_counts_as_plus():
    x = torch.tensor([-1e-30, -3.0, 0.0, 1e-30, 0.3])
    assert binary_sign(x).tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]
    assert binary_sign(x.to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(("reach", "expected"), ((1.0, [0.0, 2.0, 2.0, 2.0, 0.0]), (float("inf"), [2.0] * 5)))
def test_the_derivative_is_straight_through(reach, expected):
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5], requires_grad=True)
    (2 * binary_sign(x, reach=reach)).sum().backward()
    assert x.grad.tolist() == expected


def test_it_can_be_vectorised_over_samples():
    x = torch.tensor([[0.5, -2.0], [3.0, 0.1]])
    found = vmap(grad(lambda row: binary_sign(row, reach=1.0).sum()))(x)
    assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_reach_must_be_positive():
    with pytest.raises(ValueError, match="reach must be above 0"):
        binary_sign(torch.ones(1), reach=0.0)


@given(st.floats(-5, 5), st.floats(-1, 1), st.floats(0, 10))
def test_the_factor_is_the_papers(weight, step, m):
    found = float(
        shrinking_step_factor(
            torch.tensor(weight, dtype=torch.float64), torch.tensor(step, dtype=torch.float64), metaplasticity=m
        )
    )
    expected = 1 - math.tanh(m * abs(weight)) ** 2 if step * weight < 0 else 1.0
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_factor_stays_finite_and_positive_far_from_zero():
    found = shrinking_step_factor(torch.tensor([1e6, -1e6]), torch.tensor([-1.0, 1.0]), metaplasticity=100.0)
    assert torch.isfinite(found).all()
    assert (found < 1e-30).all()

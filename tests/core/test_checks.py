"""Gradients are checked together where each look would wait for a GPU."""

from __future__ import annotations

import pytest
import torch

from lit_meta.core.checks import _finite_together


@pytest.mark.parametrize(
    ("parts", "finite"),
    (
        ([torch.ones(3), torch.ones(2, 2, dtype=torch.float64)], True),
        ([torch.ones(3), torch.tensor([1.0, float("nan")])], False),
        ([torch.tensor([float("inf")]), torch.ones(2)], False),
        ([torch.ones(2, dtype=torch.complex64)], False),  # Looked at one by one.
    ),
)
def test_one_number_tells_whether_all_are_finite(parts, finite):
    assert _finite_together(parts) is finite

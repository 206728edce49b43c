"""Plasticity, dormant units, effective rank: cases by hand, numpy and scipy as references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from lit_meta.functional.plasticity import (
    dormancy_score,
    dormant_fraction,
    effective_rank,
    plasticity,
    rank_of_spectrum,
)

NAN = float("nan")
MATRIX = torch.tensor([[0.9, NAN, NAN], [0.4, 0.7, NAN], [0.5, 0.6, 0.2]])


def test_plasticity_by_hand() -> None:
    fresh = torch.tensor([0.9, 0.9, 0.6])
    assert plasticity(MATRIX, fresh).item() == pytest.approx((0 - 0.2 - 0.4) / 3)
    under_way = MATRIX.clone()
    under_way[2] = NAN
    assert plasticity(under_way, torch.tensor([0.9, 0.9, NAN])).item() == pytest.approx(-0.1)
    assert plasticity(MATRIX, MATRIX.diagonal()) == 0


def test_plasticity_refuses_what_was_not_measured() -> None:
    with pytest.raises(ValueError, match="1 were not measured"):
        plasticity(MATRIX, torch.tensor([0.9, NAN, 0.6]))
    with pytest.raises(ValueError, match=r"expected the accuracies of fresh networks to be \(3,\)"):
        plasticity(MATRIX, torch.rand(2))
    with pytest.raises(ValueError, match="square"):
        plasticity(torch.rand(2, 3), torch.rand(2))
    with pytest.raises(ValueError, match="no accuracy"):
        plasticity(torch.full((2, 2), NAN), torch.rand(2))


def test_dormant_units_by_hand() -> None:
    # Means 0, 0.1, 2 and 1.9: the layer's mean is 1.
    activity = torch.tensor([[0.0, -0.1, 4.0, 1.9], [0.0, 0.1, 0.0, -1.9]], dtype=torch.float64)
    torch.testing.assert_close(dormancy_score(activity), torch.tensor([0.0, 0.1, 2.0, 1.9], dtype=torch.float64))
    for threshold, share in ((0.0, 0.25), (0.05, 0.25), (0.15, 0.5), (3.0, 1.0)):
        assert dormant_fraction(activity, threshold=threshold) == share
    assert dormant_fraction(torch.zeros(5, 3)) == 1, "a silent layer is dormant as a whole"
    # Units, not layers, count alike.
    assert dormant_fraction([activity, torch.ones(2, 12, dtype=torch.float64)], threshold=0.0).item() == 1 / 16


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 1000), st.floats(0.01, 100))
def test_scores_have_mean_one_and_no_unit_of_measure(samples: int, units: int, seed: int, scale: float) -> None:
    activity = torch.randn(samples, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = dormancy_score(activity)
    assert scores.mean().item() == pytest.approx(1)
    torch.testing.assert_close(dormancy_score(scale * activity), scores)
    torch.testing.assert_close(dormancy_score(activity.abs().mean(0)), scores)


def test_bad_activity_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        dormancy_score(torch.tensor([-1.0, 1.0]))
    with pytest.raises(ValueError, match="floating-point activity"):
        dormancy_score(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="at least 0"):
        dormant_fraction(torch.ones(2), threshold=-0.1)
    with pytest.raises(ValueError, match="no layer"):
        dormant_fraction([])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 1000))
def test_effective_rank_against_numpy_and_scipy(samples: int, units: int, seed: int) -> None:
    features = torch.randn(samples, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = np.exp(entropy(np.linalg.svd(features.numpy(), compute_uv=False)))  # scipy normalises
    assert effective_rank(features).item() == pytest.approx(expected, rel=1e-9)
    assert effective_rank(3.5 * features).item() == pytest.approx(expected, rel=1e-9)
    assert 1 - 1e-9 <= expected <= min(samples, units) + 1e-9


def test_effective_rank_at_its_limits() -> None:
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6)
    assert effective_rank(torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 5))).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(4, 3)) == 0
    assert rank_of_spectrum(torch.tensor([1.0, 1.0, 2.0])).item() == pytest.approx(2**1.5)
    for wrong, message in ((torch.ones(3), "floating-point features"), (torch.tensor([[NAN]]), "NaN or infinite")):
        with pytest.raises(ValueError, match=message):
            effective_rank(wrong)
    with pytest.raises(ValueError, match="none negative"):
        rank_of_spectrum(torch.tensor([-1.0]))

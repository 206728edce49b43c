"""Student's interval against scipy, by hand, and by what it is for: covering the true mean."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from lit_meta.functional.interval import t_interval


@pytest.mark.parametrize("confidence", (0.5, 0.8, 0.95))
@pytest.mark.parametrize("seeds", (2, 3, 5, 40))
def test_against_scipy(confidence: float, seeds: int) -> None:
    values = torch.randn(seeds, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = stats.ttest_1samp(values.numpy(), 0.0).confidence_interval(confidence)
    low, high = t_interval(values, confidence=confidence)
    assert low.item() == pytest.approx(expected.low, rel=1e-9)
    assert high.item() == pytest.approx(expected.high, rel=1e-9)


def test_two_seeds_by_hand() -> None:
    # With one degree of freedom t is Cauchy's distribution, whose quantile is tan(π (p - 1/2)).
    low, high = t_interval(torch.tensor([0.4, 0.6], dtype=torch.float64))
    half = math.tan(math.pi * 0.475) * 0.1
    assert (low.item(), high.item()) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-9)


def test_five_seeds_cover_the_true_mean_as_often_as_they_say() -> None:
    values = torch.randn(5, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = t_interval(values)
    covered = ((low <= 0) & (high >= 0)).double().mean().item()
    assert covered == pytest.approx(0.95, abs=0.006)  # Four standard errors of the simulation.


def test_every_column_is_as_if_alone() -> None:
    values = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = t_interval(values)
    assert low.shape == high.shape == (3, 2)
    alone = t_interval(values[:, 1, 0])
    torch.testing.assert_close((low[1, 0], high[1, 0]), alone, rtol=0, atol=1e-12)


def test_refusals() -> None:
    for values, options, message in (
        (torch.tensor([0.1, float("nan")]), {}, "are NaN"),
        (torch.tensor([1, 2]), {}, "floating-point"),
        (torch.zeros(0), {}, "floating-point values"),
        (torch.ones(2), {"confidence": 1.0}, "below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            t_interval(values, **options)

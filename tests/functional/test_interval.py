"""The bootstrap against its exact distribution and against scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from lit_meta.functional.interval import bootstrap_interval

VALUES = torch.tensor([0.3669, 0.4401, 0.5102, 0.4112, 0.3780], dtype=torch.float64)


@pytest.mark.parametrize("confidence", (0.5, 0.8, 0.95))
def test_against_all_resamples_of_few_seeds(confidence: float) -> None:
    means = np.array([np.mean(draw) for draw in product(VALUES.tolist(), repeat=5)])  # all 3125 draws
    tail = (1 - confidence) / 2
    low, high = bootstrap_interval(VALUES, confidence=confidence, resamples=100_000)
    assert low.item() == pytest.approx(np.quantile(means, tail), abs=1.5e-3)
    assert high.item() == pytest.approx(np.quantile(means, 1 - tail), abs=1.5e-3)


def test_against_scipy() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = stats.bootstrap(
        (values.numpy(),), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = bootstrap_interval(values, resamples=50_000)
    assert low.item() == pytest.approx(expected.low, abs=0.01)
    assert high.item() == pytest.approx(expected.high, abs=0.01)


def test_every_column_is_as_if_alone_and_the_seed_decides() -> None:
    values = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = bootstrap_interval(values, seed=7)
    assert low.shape == high.shape == (3, 2)
    alone = bootstrap_interval(values[:, 1, 0], seed=7)
    torch.testing.assert_close((low[1, 0], high[1, 0]), alone, rtol=0, atol=1e-12)
    assert not torch.equal(bootstrap_interval(values, seed=8)[0], low)
    state = torch.get_rng_state()
    bootstrap_interval(values)
    assert torch.equal(torch.get_rng_state(), state)


def test_more_values_than_torch_quantile_takes() -> None:
    low, high = bootstrap_interval(torch.rand(3, 20_000), resamples=1000)
    assert bool((low <= high).all())


def test_refusals() -> None:
    for values, options, message in (
        (torch.tensor([0.1, float("nan")]), {}, "are NaN"),
        (torch.tensor([1, 2]), {}, "floating-point"),
        (torch.zeros(0), {}, "floating-point values"),
        (torch.ones(2), {"confidence": 1.0}, "below 1"),
        (torch.ones(2), {"resamples": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_interval(values, **options)  # type: ignore[arg-type]

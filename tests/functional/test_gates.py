"""Gates against plain numpy, bounded, and (but for the published one) of the sample alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_meta.functional import batch_gate, nearest_index, sample_gate, top_k_gate


def logistic(value):
    return np.exp(-np.logaddexp(0.0, -value))


def resample(values, units):
    """Nearest resampling of the last axis, the scale in single precision as torch has it."""
    scale = np.float32(values.shape[-1]) / np.float32(units)
    index = np.floor(np.arange(units, dtype=np.float32) * scale).astype(int)
    return values[..., np.minimum(index, values.shape[-1] - 1)]


def reference(drive, margin, threshold, slope):
    level = drive.max(axis=-1, keepdims=True) - margin if threshold is None else threshold
    return logistic(slope * (drive - level))


@settings(max_examples=150, deadline=None)
@given(features=st.integers(1, 3100), units=st.integers(1, 4100))
def test_index_is_that_of_interpolate(features, units):
    x = torch.rand(2, features)
    expected = F.interpolate(x[:, None], size=units, mode="nearest")[:, 0]
    assert torch.equal(x[:, nearest_index(features, units)], expected)


@pytest.mark.parametrize("options", ({"margin": 0.2}, {"threshold": 0.8}, {"margin": 0.0, "slope": 3.0}))
@pytest.mark.parametrize("units", (5, 12, 31))
def test_gates_follow_the_equation(options, units):
    x = torch.rand(6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(units))
    flat = x.flatten(1).numpy()
    margin, threshold = options.get("margin"), options.get("threshold")
    slope = options.get("slope", 1000.0)
    np.testing.assert_allclose(
        batch_gate(x, units, **options).numpy(),
        reference(resample(flat.mean(axis=0), units), margin, threshold, slope),
        rtol=1e-6,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        sample_gate(x, units, **options).numpy(),
        reference(resample(flat, units), margin, threshold, slope),
        rtol=1e-6,
        atol=1e-12,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    features=st.integers(1, 40),
    units=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_gates_stay_between_zero_and_one(seed, features, units, scale, dtype):
    x = (torch.randn(4, features, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
    x = x.clamp(-6e4, 6e4)
    k = 1 + seed % units
    for mask in (
        batch_gate(x, units, margin=0.2),
        sample_gate(x, units, threshold=0.8),
        top_k_gate(x, units, k),
    ):
        assert mask.isfinite().all()
        assert 0 <= mask.min() <= mask.max() <= 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 20), levels=st.integers(1, 6))
def test_top_k_opens_k_of_the_largest_ties_in_order(seed, k, levels):
    x = torch.randint(0, levels, (5, 20), generator=torch.Generator().manual_seed(seed)).float()
    mask = top_k_gate(x, 20, k)
    for row, opened in zip(x.tolist(), mask, strict=True):
        order = sorted(range(20), key=lambda i: (-row[i], i))
        assert sorted(order[:k]) == opened.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    "gate",
    (lambda x: sample_gate(x, 30, margin=0.2), lambda x: top_k_gate(x, 30, 6)),
    ids=["sample", "top_k"],
)
def test_a_sample_does_not_see_its_batch(gate):
    x = torch.rand(16, 20)
    whole = gate(x)
    order = torch.randperm(16)
    # To rounding only: the last bit of a logistic may depend on a number's place in its vector register.
    torch.testing.assert_close(gate(x[order]), whole[order], rtol=1e-5, atol=1e-12)
    alone = torch.cat([gate(x[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-12)


def test_the_published_gate_sees_the_batch_and_agrees_for_a_batch_of_one():
    x = torch.eye(4)
    assert torch.equal(batch_gate(x[:1], 4, margin=0.2), sample_gate(x[:1], 4, margin=0.2)[0])
    assert not torch.equal(batch_gate(x, 4, margin=0.2), batch_gate(x[:1], 4, margin=0.2))


def test_an_index_made_before_gives_the_same():
    x = torch.rand(3, 10)
    index = nearest_index(10, 25)
    assert torch.equal(sample_gate(x, 25, margin=0.2, index=index), sample_gate(x, 25, margin=0.2))
    with pytest.raises(ValueError, match=r"index must have shape \(24,\)"):
        sample_gate(x, 24, margin=0.2, index=index)


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: batch_gate(torch.rand(2, 3), 0, margin=0.2), "at least one unit"),
        (lambda: batch_gate(torch.rand(3), 3, margin=0.2), "non-empty batch"),
        (lambda: sample_gate(torch.rand(0, 3), 3, margin=0.2), "non-empty batch"),
        (lambda: batch_gate(torch.rand(2, 3), 3), "exactly one"),
        (lambda: batch_gate(torch.rand(2, 3), 3, margin=0.1, threshold=0.8), "exactly one"),
        (lambda: sample_gate(torch.rand(2, 3), 3, margin=-0.1), "margin must not be negative"),
        (lambda: sample_gate(torch.rand(2, 3), 3, margin=0.1, slope=0.0), "slope must be positive"),
        (lambda: top_k_gate(torch.rand(2, 3), 4, 5), "from 1 to 4 of them, got k=5"),
        (lambda: top_k_gate(torch.rand(2, 3), 4, 0), "from 1 to 4 of them, got k=0"),
        (lambda: nearest_index(0, 3), "features=0"),
    ),
)
def test_wrong_use_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

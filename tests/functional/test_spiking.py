"""LIF dynamics, surrogate derivatives and spike encoding against references in plain Python."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_meta.functional import LIFState, bernoulli_encode, encoding_thresholds, lif_step, threshold_encode


def lif_by_hand(currents, decay, threshold):
    """One neuron: potentials and spikes over time."""
    potential, spike, potentials, spikes = 0.0, 0, [], []
    for current in currents:
        potential = decay * potential * (1 - spike) + current
        spike = int(potential > threshold)
        potentials.append(potential)
        spikes.append(spike)
    return potentials, spikes


@settings(max_examples=100, deadline=None)
@given(
    currents=st.lists(st.floats(-1, 2), min_size=1, max_size=12),
    decay=st.floats(0, 1),
    threshold=st.floats(0.1, 1),
)
def test_dynamics_follow_the_equation(currents, decay, threshold):
    potentials, spikes = lif_by_hand(currents, decay, threshold)
    state = None
    for current, potential, spike in zip(currents, potentials, spikes, strict=True):
        fired, state = lif_step(torch.tensor([[current]], dtype=torch.float64), state, decay=decay, threshold=threshold)
        assert state.potential.item() == pytest.approx(potential, rel=1e-6, abs=1e-12)
        assert fired.item() == state.spikes.item() == spike


@settings(max_examples=50, deadline=None)
@given(charge=st.floats(0.51, 100), current=st.floats(-1, 1))
def test_a_spike_resets_whatever_the_charge(charge, current):
    _, state = lif_step(torch.tensor([[charge]]))
    assert state.spikes.item() == 1
    _, state = lif_step(torch.tensor([[current]]), state)
    assert state.potential.item() == pytest.approx(current)


def test_firing_is_strictly_above_the_threshold():
    assert lif_step(torch.tensor([[0.5, 0.5000001]]))[0].tolist() == [[0.0, 1.0]]


def test_stdp_surrogate_by_hand():
    # Active now (V > 0.3) against active before: the four cases in turn, and the edge of the lens.
    current = torch.tensor([[0.6, 0.6, 0.1, 0.1, 0.3]], dtype=torch.float64, requires_grad=True)
    before = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    state = LIFState(torch.zeros_like(before), before)
    spikes, _ = lif_step(current, state, surrogate="stdp", lens=0.2)
    upstream = torch.tensor([[2.0, 3.0, 5.0, 7.0, 11.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(spikes, current, upstream)
    assert spikes.tolist() == [[1, 1, 0, 0, 0]]
    assert gradient.tolist() == [[2.0, 0.0, 0.0, -7.0, 0.0]]


def test_stdp_gradient_of_weights_by_hand():
    # Two steps of one neuron with input x and weight w: ∂L/∂w = upstream · ([V₂ > 0.3] − S₁) · x.
    x, upstream = 0.4, 1.5
    for weight, expected in [(0.9, upstream * x), (2.0, 0.0)]:
        w = torch.tensor([[weight]], requires_grad=True)
        _, state = lif_step((w * x).detach())
        spikes, _ = lif_step(w * x, state, surrogate="stdp")
        (gradient,) = torch.autograd.grad(spikes, w, torch.tensor([[upstream]]))
        _, by_hand = lif_by_hand([weight * x, weight * x], 0.2, 0.5)
        potentials, _ = lif_by_hand([weight * x, weight * x], 0.2, 0.5)
        assert gradient.item() == pytest.approx(upstream * (int(potentials[1] > 0.3) - by_hand[0]) * x)
        assert gradient.item() == pytest.approx(expected)


def test_rectangular_surrogate_by_hand_and_of_unit_area():
    current = torch.tensor([[0.25, 0.35, 0.65, 0.75]], dtype=torch.float64, requires_grad=True)
    spikes, _ = lif_step(current, surrogate="rectangular", lens=0.2)
    (gradient,) = torch.autograd.grad(spikes.sum(), current)
    assert gradient.tolist() == [[0.0, 2.5, 2.5, 0.0]]
    grid = torch.linspace(-1, 2, 30_001, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(lif_step(grid[None], surrogate="rectangular", lens=0.2)[0].sum(), grid)
    assert (gradient.sum() * 1e-4).item() == pytest.approx(1.0, abs=1e-3)


def test_gradient_through_time_by_hand():
    # V₁ = 0.4 (no spike), V₂ = 0.2·0.4 + 0.45 = 0.53, both within the lens, where dS/dV = 2.5:
    # dS₂/dI₁ = 2.5 · 0.2 · ((1 − S₁) − V₁ · 2.5).
    first = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    _, state = lif_step(first, surrogate="rectangular")
    spikes, _ = lif_step(torch.tensor([[0.45]], dtype=torch.float64), state, surrogate="rectangular")
    (gradient,) = torch.autograd.grad(spikes.sum(), first)
    assert gradient.item() == pytest.approx(2.5 * 0.2 * ((1 - 0) - 0.4 * 2.5))
    spikes, _ = lif_step(
        torch.tensor([[0.45]], dtype=torch.float64),
        LIFState(*(t.detach() for t in state)),
        surrogate="rectangular",
    )
    assert not spikes.requires_grad


def test_without_a_surrogate_no_gradient_passes():
    spikes, _ = lif_step(torch.ones(1, 2, requires_grad=True))
    assert not spikes.requires_grad


@pytest.mark.parametrize("surrogate", ("stdp", "rectangular"))
def test_surrogates_under_vmap_equal_a_loop(surrogate):
    currents = torch.rand(5, 3)
    before = torch.randint(0, 2, (5, 3)).float()

    def total(current, spikes):
        return lif_step(current, LIFState(spikes * 0.6, spikes), surrogate=surrogate)[0].sum()

    batched = torch.func.vmap(torch.func.grad(total))(currents, before)
    looped = torch.stack([torch.func.grad(total)(c, s) for c, s in zip(currents, before, strict=True)])
    assert torch.equal(batched, looped)


def test_encoding_rate_is_the_intensity():
    x = torch.tensor([[0.0, 0.2, 0.7, 1.0]])
    generator = torch.Generator().manual_seed(0)
    drawn = bernoulli_encode(x, 20_000, generator=generator)
    fixed = threshold_encode(x, encoding_thresholds((4,), 20_000, seed=3))
    for spikes in (drawn, fixed):
        assert spikes.shape == (20_000, 1, 4)
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
        # Four standard errors; 0 and 1 are exact.
        np.testing.assert_allclose(spikes.mean(dim=0)[0].numpy(), x[0].numpy(), atol=4 * 0.5 / 20_000**0.5)
        assert spikes.mean(dim=0)[0, [0, 3]].tolist() == [0.0, 1.0]


def test_encoding_range_is_linear_between_low_and_high():
    x = torch.tensor([[-1.0, 0.0, 3.0]])
    rate = bernoulli_encode(x, 20_000, low=-1.0, high=3.0, generator=torch.Generator().manual_seed(0)).mean(0)
    np.testing.assert_allclose(rate[0].numpy(), [0, 0.25, 1], atol=0.015)
    fixed = threshold_encode(x, encoding_thresholds((3,), 20_000, low=-1.0, high=3.0)).mean(0)
    np.testing.assert_allclose(fixed[0].numpy(), [0, 0.25, 1], atol=0.015)


def test_only_the_batch_range_lets_samples_see_each_other():
    sample = torch.full((1, 50), 0.5)
    bright = torch.cat([sample, torch.full((1, 50), 4.0), torch.zeros(1, 50)])
    rates = {}
    for kind in ("fixed", "batch"):
        spikes = bernoulli_encode(bright, 200, range=kind, generator=torch.Generator().manual_seed(0))
        rates[kind] = spikes[:, 0].mean().item()
    assert rates["fixed"] == pytest.approx(0.5, abs=0.03)
    assert rates["batch"] == pytest.approx(0.125, abs=0.03)


def hash_by_hand(value):
    value ^= value >> 16
    value = (value * 0x21F0AAAD) % 2**32
    value ^= value >> 15
    value = (value * 0x735A2D97) % 2**32
    return value ^ (value >> 15)


@pytest.mark.parametrize("seed", (0, 1, 2**32 - 1))
def test_thresholds_are_the_hash_in_exact_integers(seed):
    key = hash_by_hand((seed + 1) % 2**32)
    table = encoding_thresholds((2, 3), 4, seed=seed, start=7)
    for t in range(4):
        row = hash_by_hand((key + 7 + t) % 2**32)
        expected = [(hash_by_hand((row + i) % 2**32) >> 8) / 2**24 for i in range(6)]
        assert table[t].flatten().tolist() == expected


def test_thresholds_are_uniform_and_uncorrelated():
    table = encoding_thresholds((500,), 200, seed=11).double()
    counts = torch.histc(table.flatten(), 20, 0.0, 1.0)
    expected = table.numel() / 20
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 50  # 19 degrees of freedom: above 50 once in 8,000
    assert table.max() < 1
    for axis, other in ((table, encoding_thresholds((500,), 200, seed=12).double()),):
        centred = axis - 0.5
        for shifted in (centred.roll(1, 0), centred.roll(1, 1), other - 0.5):
            correlation = (centred * shifted).mean().item() * 12
            assert abs(correlation) < 4 / table.numel() ** 0.5


def test_equal_samples_spike_equally_in_any_batch():
    thresholds = encoding_thresholds((9,), 20)
    x = torch.rand(8, 9)
    whole = threshold_encode(x, thresholds)
    order = torch.randperm(8)
    assert torch.equal(threshold_encode(x[order], thresholds), whole[:, order])
    assert torch.equal(threshold_encode(x[3:4], thresholds)[:, 0], whole[:, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda: lif_step(torch.ones(1, 1), surrogate="atan"), "'stdp', 'rectangular' or None, got 'atan'"),
        (lambda: lif_step(torch.ones(1, 1), surrogate="stdp", lens=0.0), "lens must be positive"),
        (
            lambda: lif_step(torch.ones(2, 1), LIFState.at_rest(torch.ones(1, 1))),
            "start every batch from rest",
        ),
        (lambda: bernoulli_encode(torch.ones(1, 1), 0), "steps must be at least 1, got 0"),
        (lambda: bernoulli_encode(torch.ones(1, 1), 2, low=1.0, high=1.0), "low must be below high"),
        (lambda: bernoulli_encode(torch.ones(1, 1), 2, range="sample"), "'fixed' or 'batch', got 'sample'"),
        (lambda: encoding_thresholds((3,), 0), "steps must be at least 1"),
        (lambda: encoding_thresholds((3,), 2, seed=-1), "seed must be"),
        (lambda: encoding_thresholds((3,), 2, start=-1), "start must not be negative"),
        (lambda: threshold_encode(torch.ones(2, 3), torch.ones(5, 4)), "need thresholds of shape"),
    ),
)
def test_wrong_use_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Expectation codes, levels and the modulation curve, against the equations written out in plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_meta.functional import (
    expectation_code,
    modulation_table,
    neuromodulator_level,
    neuromodulator_projection,
    plasticity_modulation,
)


def modulation_by_pieces(level, inversion, maximum):
    """M as the paper writes it, piece by piece, with the reflection for the upper half."""
    if level > inversion:
        return -modulation_by_pieces(2 * inversion - level, inversion, maximum)
    if level <= inversion / 2:
        return maximum - (maximum - 1) * (4 * level - inversion) ** 2 / inversion**2
    return 4 * (level - inversion) ** 2 / inversion**2


def shared_pairs(code):
    used = [set(row.nonzero().flatten().tolist()) for row in code]
    return sum(bool(a & b) for i, a in enumerate(used) for b in used[i + 1 :])


def test_code_of_ten_classes_is_the_published_one():
    alpha = [18, 15, 13, 11, 9, 8, 7, 5, 3, 0]
    expected = np.zeros((10, 20))
    for c, a in enumerate(alpha):
        expected[c, a] = expected[c, a + 1] = 0.5
    np.testing.assert_array_equal(expectation_code(10).numpy(), expected)


@pytest.mark.parametrize(("classes", "pairs"), ((10, 2), (46, 21)))
def test_neighbouring_paper_codes_share_an_index_and_disjoint_ones_do_not(classes, pairs):
    assert shared_pairs(expectation_code(classes)) == pairs
    assert shared_pairs(expectation_code(classes, kind="disjoint")) == 0


@settings(max_examples=60, deadline=None)
@given(classes=st.integers(2, 200), kind=st.sampled_from(["paper", "disjoint"]))
def test_codes_are_distinct_neighbouring_halves(classes, kind):
    code = expectation_code(classes, kind=kind)
    assert code.shape == (classes, 2 * classes)
    assert len({tuple(row.tolist()) for row in code}) == classes
    for row in code:
        on = row.nonzero().flatten().tolist()
        assert on[1] == on[0] + 1
        assert row[on].tolist() == [0.5, 0.5]


def test_colliding_codes_are_refused_and_named():
    with pytest.raises(ValueError, match=r"classes \d+ and \d+ of 1000 get the same .* kind='disjoint'"):
        expectation_code(1000)
    assert shared_pairs(expectation_code(300, kind="disjoint")) == 0


@pytest.mark.parametrize("kind", ("paper", "disjoint"))
@pytest.mark.parametrize("classes", (1, 0, -3))
def test_fewer_than_two_classes_are_refused(classes, kind):
    with pytest.raises(ValueError, match=f"at least 2 classes, got {classes}"):
        expectation_code(classes, kind=kind)


def test_unknown_code_is_refused():
    with pytest.raises(ValueError, match="'paper' or 'disjoint', got 'onehot'"):
        expectation_code(10, kind="onehot")


@settings(max_examples=300, deadline=None)
@given(share=st.floats(0, 1), inversion=st.floats(0.05, 2.0), maximum=st.floats(1.0, 3.0))
def test_curve_follows_the_pieces_is_odd_and_bounded(share, inversion, maximum):
    level = 2 * inversion * share

    def curve(value):
        tensor = torch.tensor(value, dtype=torch.float64)
        return plasticity_modulation(tensor, inversion=inversion, maximum=maximum).item()

    assert curve(level) == pytest.approx(modulation_by_pieces(level, inversion, maximum), rel=1e-6, abs=1e-9)
    assert curve(2 * inversion - level) == pytest.approx(-curve(level), abs=1e-9)
    assert abs(curve(level)) <= maximum * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(inversion=st.floats(0.1, 1.0), maximum=st.floats(1.0, 2.0))
def test_curve_is_continuous(inversion, maximum):
    levels = torch.linspace(0, 2 * inversion, 4001, dtype=torch.float64)
    jumps = plasticity_modulation(levels, inversion=inversion, maximum=maximum).diff().abs()
    # The steepest slopes are 8(θ − 1)/Λ and 4/Λ; the grid is 2Λ/4000 apart.
    assert jumps.max() <= max(8 * (maximum - 1), 4) * 2 / 4000 * 1.001


def test_low_levels_depress_and_high_levels_potentiate_by_descent():
    modulation = plasticity_modulation(torch.tensor([0.1, 0.9]))
    assert modulation[0] > 0 > modulation[1]


def test_levels_outside_the_curve_keep_the_value_of_the_end():
    levels = torch.tensor([-0.5, 0.0, 0.6, 1.0])
    assert plasticity_modulation(levels, inversion=0.3).tolist() == pytest.approx([1, 1, -1, -1])


@pytest.mark.parametrize("options", ({"inversion": 0.0}, {"inversion": -1.0}, {"maximum": 0.9}))
def test_curve_parameters_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        plasticity_modulation(torch.zeros(1), **options)


@pytest.mark.parametrize(
    ("distribution", "mean", "variance"),
    # Clipped normal by numerical integration below; Beta(½, ½) has variance 1/8.
    (("uniform", 0.5, 1 / 12), ("normal", 0.5, None), ("beta", 0.5, 1 / 8)),
)
def test_projection_has_the_moments_of_its_distribution(distribution, mean, variance):
    draw = neuromodulator_projection(50, 2000, distribution=distribution, generator=torch.Generator().manual_seed(1))
    if variance is None:
        z = np.linspace(-8, 8, 200_001)
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        variance = float(np.sum((np.clip(z + 0.5, 0, 1) - 0.5) ** 2 * density) * (z[1] - z[0]))
    assert draw.shape == (100, 2000)
    assert 0 <= draw.min() <= draw.max() <= 1
    assert draw.mean().item() == pytest.approx(mean, abs=0.005)
    assert draw.var().item() == pytest.approx(variance, abs=0.003)


def test_projection_follows_its_generator_and_leaves_the_global_one():
    before = torch.get_rng_state()
    first, again, other = (
        neuromodulator_projection(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    (((0, 3), "classes=0"), ((3, 0), "units=0")),
)
def test_projection_of_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        neuromodulator_projection(*arguments)


def test_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="'uniform', 'normal' or 'beta', got 'cauchy'"):
        neuromodulator_projection(3, 3, distribution="cauchy")


def test_table_is_the_curve_of_the_level_of_every_class():
    code = expectation_code(10).double()
    projection = neuromodulator_projection(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = modulation_table(code, projection, inversion=0.4, maximum=1.5)
    for c in range(10):
        on = code[c].nonzero().flatten().tolist()
        for j in range(7):
            level = (projection[on[0], j].item() + projection[on[1], j].item()) / 2
            level = min(level, 0.8)
            assert table[c, j].item() == pytest.approx(modulation_by_pieces(level, 0.4, 1.5), rel=1e-6)


def test_level_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        neuromodulator_level(torch.zeros(3, 4), torch.zeros(6, 2))

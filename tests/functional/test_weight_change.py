"""Changes of weights by hand, and the map against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_meta.functional.weight_change import change_map, changed_fraction, relative_change


def test_by_hand() -> None:
    before = torch.tensor([[3.0, -3.0], [3.0, 3.0]])
    after = torch.tensor([[3.0, -3.3], [6.0, 3.03]])
    torch.testing.assert_close(relative_change(before, after), torch.tensor([[0.0, 0.1], [1.0, 0.01]]))
    for threshold, share in ((0.0, 0.75), (0.05, 0.5), (0.5, 0.25), (1.5, 0.0)):
        assert changed_fraction(before, after, threshold=threshold) == share
    assert changed_fraction(before, before) == 0


def test_weights_that_begin_at_zero_have_changed_where_they_are_no_longer() -> None:
    after = torch.tensor([0.0, 0.0, 0.0, 2.0])
    torch.testing.assert_close(relative_change(torch.zeros(4), after), torch.tensor([0.0, 0.0, 0.0, 2.0]))
    assert changed_fraction(torch.zeros(4), after, threshold=0.5) == 0.25
    assert relative_change(torch.zeros(4), torch.zeros(4)).sum() == 0


def test_a_map_is_the_mean_over_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 12, 3, 4, 2, generator=generator, dtype=torch.float64)
    found = change_map(before, after, size=(4, 6))
    change = np.abs((after - before).numpy()).reshape(12, 24) / np.sqrt(np.mean(before.numpy() ** 2))
    expected = [[change[3 * i : 3 * i + 3, 4 * j : 4 * j + 4].mean() for j in range(6)] for i in range(4)]
    np.testing.assert_allclose(found.numpy(), expected)
    assert found.mean().item() == pytest.approx(relative_change(before, after).mean().item())


def test_a_small_layer_is_shown_weight_by_weight() -> None:
    before, after = torch.ones(2, 3), torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(change_map(before, after), torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 1.0]]))
    assert change_map(torch.ones(5), torch.zeros(5)).shape == (5, 1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one shape"):
        changed_fraction(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="at least 0"):
        changed_fraction(torch.ones(2), torch.ones(2), threshold=-1)
    with pytest.raises(ValueError, match="at least one row"):
        change_map(torch.ones(2, 2), torch.ones(2, 2), size=(0, 3))

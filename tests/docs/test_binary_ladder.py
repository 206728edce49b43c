"""The ladder of binary metaplasticity: what is told makes the difference it says, and the page has the committed numbers."""

from __future__ import annotations

import pytest
import torch

from docs.tables import binary_ladder
from docs.tables.binary_ladder import step, table, with_own_parameters
from lit_meta.networks import BinaryMLP


def test_each_task_is_tested_with_its_own_scales_and_shifts():
    network = BinaryMLP(4, [8], 3, normalization="test-batch", seed=0)
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    kept, tests = [], []
    for task in range(2):
        with torch.no_grad():
            network.normalizations[1].bias[task] += 10.0 * (task + 1)
        kept.append({name: value.clone() for name, value in network.normalizations.state_dict().items()})
        tests.append((x, torch.full((30,), task)))
    assert with_own_parameters(network, kept, tests) == [1.0, 1.0]
    assert with_own_parameters(network, [kept[1], kept[1]], tests) == [0.0, 1.0]
    assert torch.equal(network.normalizations[1].bias, kept[1]["1.bias"])


def test_the_last_task_has_the_parameters_that_are_there_anyway(data_root):
    row = step(20, 1, samples=300, test_samples=60, experiences=2)
    assert row["parameters"][-1] == pytest.approx(row["statistics"][-1], abs=1e-4)
    assert 0 < row["shuffled"] < 1
    assert "| 2 x 20 | 1 |" in table([row])


def test_the_page_has_the_committed_steps(tmp_path):
    page = tmp_path / "published.md"
    page.write_text((binary_ladder.DOCS / "published.md").read_text())
    assert not binary_ladder.main(page)

"""What was lost between two states of a network, class by class."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import MetaplasticModule, fit_stream, retention, scenario
from lit_meta.data import experience_tensors
from lit_meta.data.benchmark import BenchmarkView
from lit_meta.networks import build_network

TARGETS = torch.tensor([0, 0, 0, 1, 1, 2])
BEFORE = torch.tensor([0, 0, 1, 1, 1, 0])
AFTER = torch.tensor([2, 1, 0, 2, 2, 2])


def test_counts_of_a_case_by_hand():
    report = retention(BEFORE, AFTER, (torch.zeros(6, 1), TARGETS))
    one, zero, two = report.classes  # The greatest loss first.
    assert (one.name, one.before, one.after, one.lost, one.gained, one.taken_by) == ("1", 1.0, 0.0, 2, 0, "2")
    assert (zero.name, zero.samples, zero.lost, zero.gained) == ("0", 3, 2, 1)
    assert zero.change == pytest.approx(-1 / 3)
    assert (two.change, two.taken_by) == (1.0, None)
    assert report.before == pytest.approx(4 / 6)
    assert report.after == pytest.approx(2 / 6)
    assert report.kept == 0.0
    assert "66.7 % before, 33.3 % after" in repr(report)
    assert report.to_dict()["classes"][0]["lost"] == 2
    assert report.to_pandas().loc[0, "taken_by"] == "2"
    assert "<td>1</td>" in report._repr_html_()


def test_a_stream_forgets_what_the_matrix_says():
    torch.manual_seed(0)
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[20], classes=10))
    benchmark = scenario("split-digits", experiences=2)
    fit_stream(module, BenchmarkView("first", benchmark.train_stream[:1], benchmark.test_stream), max_epochs=10)
    before = copy.deepcopy(module)
    result = fit_stream(
        module, BenchmarkView("second", benchmark.train_stream[1:], benchmark.test_stream), max_epochs=10
    )
    report = retention(before, module, benchmark)
    old = {str(label) for label in benchmark.test_stream[0].classes_in_this_experience}
    correct = sum(c.after * c.samples for c in report.classes if c.name in old)
    tested = sum(c.samples for c in report.classes if c.name in old)
    assert correct / tested == pytest.approx(float(result.accuracy_matrix[0, 0]), abs=1e-6)
    samples = [experience_tensors(experience) for experience in benchmark.test_stream]
    inputs, targets = torch.cat([x for x, _ in samples]), torch.cat([y for _, y in samples])
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64)
    assert retention(before, module, loader).to_dict() == report.to_dict()


@pytest.mark.parametrize(
    ("data", "error"),
    (([1, 2], TypeError), ((torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)), ValueError)),
)
def test_data_that_cannot_be_tested_are_refused(data, error):
    with pytest.raises(error):
        retention(nn.Identity(), nn.Identity(), data)


def test_predictions_of_another_number_are_refused():
    with pytest.raises(ValueError, match="each of 6 samples"):
        retention(BEFORE[:2], AFTER, (torch.zeros(6, 1), TARGETS))

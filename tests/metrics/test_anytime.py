"""AAA: the function, the metric, and what a stream gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_meta import MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import ContinualEvaluation
from lit_meta.functional.matrix import anytime_accuracy
from lit_meta.functional.stability import average_anytime_accuracy, stability_gap
from lit_meta.metrics import AverageAnytimeAccuracy
from lit_meta.networks import build_network


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_evaluated_at_the_ends_alone_it_is_the_anytime_accuracy_of_the_matrix(experiences, seed):
    matrix = torch.rand(experiences, experiences, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.allclose(average_anytime_accuracy(matrix[:, None]), anytime_accuracy(matrix))
    assert torch.allclose(average_anytime_accuracy(matrix[:, None], of_all=True), matrix.mean())


def test_every_evaluation_counts_the_same_however_many_an_experience_has():
    nan = float("nan")
    trace = torch.tensor([[[1.0, 0.0], [nan, nan], [nan, nan]], [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert float(average_anytime_accuracy(trace)) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert float(average_anytime_accuracy(trace, of_all=True)) == pytest.approx((0.5 + 0 + 0.5 + 1) / 4)


def test_what_has_no_value_is_refused():
    with pytest.raises(ValueError, match="of_all=True"):
        average_anytime_accuracy(torch.rand(3, 1, 2))
    with pytest.raises(ValueError, match="nothing was evaluated"):
        average_anytime_accuracy(torch.full((2, 1, 2), float("nan")))


def test_the_metric_counts_predictions():
    metric = AverageAnytimeAccuracy(2, evaluations=1)
    for i, j, right in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)):
        metric.update(i, 0, j, torch.tensor([right]), torch.tensor([1]))
    assert float(metric.compute()) == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("name", ("split-digits", "online-digits"))
def test_a_stream_is_evaluated_every_few_steps(name):
    benchmark = scenario(name, experiences=2, **({"samples": 500} if name.startswith("online") else {}))
    evaluation = ContinualEvaluation(benchmark.test_stream, every_n_steps=2)
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
    result = fit_stream(module, benchmark, callbacks=[evaluation], accelerator="cpu")
    rows = [(i, row) for i, rows in enumerate(evaluation.rows) for row in rows]
    of_all = len(result.accuracy_matrix) > 2
    expected = [float(row.mean() if of_all else row[: i + 1].mean()) for i, row in rows]
    assert evaluation.average_anytime_accuracy == pytest.approx(sum(expected) / len(expected))
    assert all(torch.equal(rows[-1], end) for rows, end in zip(evaluation.rows, result.accuracy_matrix, strict=True))


def test_fit_stream_evaluates_within_experiences(tmp_path):
    benchmark = scenario("split-digits", experiences=2)

    def fit(**options):
        module = MetaplasticModule(
            build_network("mlp", inputs=64, hidden=[8], classes=10, activation="relu", seed=0), loss="mse"
        )
        return fit_stream(module, benchmark, batch_size=32, accelerator="cpu", **options)

    evaluation = ContinualEvaluation(benchmark.test_stream, every_n_steps=3)
    by_callback, plain = fit(callbacks=[evaluation]), fit()
    result = fit(evaluate_every=3, run_dir=tmp_path / "run")
    assert torch.equal(result.trace, evaluation.trace)
    assert torch.equal(result.accuracy_matrix, plain.accuracy_matrix)
    assert result.average_anytime_accuracy == evaluation.average_anytime_accuracy
    assert result.to_dict()["average_anytime_accuracy"] == result.average_anytime_accuracy
    assert result.stability_gap == float(stability_gap(evaluation.trace))
    assert (tmp_path / "run" / "continual_evaluation.json").is_file()
    assert (by_callback.trace, plain.average_anytime_accuracy, plain.stability_gap) == (None, None, None)
    again = fit(evaluate_every=3, run_dir=tmp_path / "run", resume=True)
    assert torch.equal(again.trace, result.trace)
    with pytest.raises(ValueError, match="callbacks"):
        fit(evaluate_every=2, run_dir=tmp_path / "run", resume=True)
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="evaluate_every must be a whole number of at least 1"):
            fit(evaluate_every=wrong)
    with pytest.raises(ValueError, match="give one of them"):
        fit(evaluate_every=2, callbacks=[evaluation])

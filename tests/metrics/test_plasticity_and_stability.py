"""The stateful metrics give what the pure functions give, however samples are divided."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lit_meta.functional import plasticity as functional
from lit_meta.functional import stability
from lit_meta.functional.interval import t_interval
from lit_meta.metrics import (
    AccuracyTrace,
    DormantUnits,
    EffectiveRank,
    MinimumAccuracyWithin,
    Plasticity,
    SeedInterval,
    StabilityGap,
    WorstCaseAccuracy,
)

NAN = float("nan")
TRACE = torch.tensor([[[0.5, 0.0], [1.0, 0.0]], [[0.25, 0.75], [NAN, NAN]]])


def feed(metric: AccuracyTrace) -> AccuracyTrace:
    for i, n, j in (~TRACE.isnan()).nonzero().tolist():
        right = int(4 * TRACE[i, n, j])
        target = torch.zeros(4, dtype=torch.long)
        prediction = (torch.arange(4) >= right).long()
        metric.update(i, n, j, prediction[:1], target[:1])
        metric.update(i, n, j, torch.nn.functional.one_hot(prediction[1:], 2).float(), target[1:])
    return metric


def test_a_trace_and_what_is_taken_from_it() -> None:
    torch.testing.assert_close(feed(AccuracyTrace(2, 2)).compute(), TRACE, equal_nan=True)
    collection = MetricCollection([StabilityGap(2, 2), MinimumAccuracyWithin(2, 2), WorstCaseAccuracy(2, 2)])
    feed(collection)  # type: ignore[arg-type]
    values = collection.compute()
    assert values["StabilityGap"] == stability.stability_gap(TRACE)
    assert values["MinimumAccuracyWithin"] == 0.25
    assert values["WorstCaseAccuracy"] == pytest.approx(0.75 / 2 + 0.25 / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ((2, 0, 0), r"train_experience to be 0\.\.1, got 2"),
        ((0, -1, 0), r"evaluation to be 0\.\.1, got -1"),
        ((0, 0, 5), r"test_experience to be 0\.\.1, got 5"),
    ),
)
def test_indices_out_of_range_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    labels = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        AccuracyTrace(2, 2).update(*arguments, labels, labels)
    with pytest.raises(ValueError, match="as integers"):
        AccuracyTrace(2, 2).update(0, 0, 0, torch.rand(3), labels)
    with pytest.raises(ValueError, match="evaluations must be a whole number"):
        AccuracyTrace(2, 0)


def test_plasticity_counts_both_networks() -> None:
    metric = Plasticity(2)
    zeros = torch.zeros(4, dtype=torch.long)
    for i, j, right in ((0, 0, 4), (0, 1, 0), (1, 0, 2), (1, 1, 1)):
        metric.update(i, j, (torch.arange(4) >= right).long(), zeros)
    with pytest.raises(ValueError, match="were not measured"):
        metric.clone().compute()
    metric.update_fresh(0, zeros, zeros)
    metric.update_fresh(1, torch.tensor([0, 0, 0, 1]), zeros)
    assert metric.compute() == pytest.approx((0 - 0.5) / 2)
    with pytest.raises(ValueError, match="train_experience"):
        metric.update_fresh(2, zeros, zeros)


def fed_features(metric: Metric, features: Tensor, parts: int) -> Metric:
    for part in features.tensor_split(parts):
        metric.update(part)
    return metric


@pytest.mark.parametrize("parts", (1, 3, 7))
def test_batches_do_not_matter(parts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.relu(torch.randn(40, 6, generator=generator) - torch.linspace(-1, 3, 6))
    rank = fed_features(EffectiveRank(6), features, parts).compute()
    torch.testing.assert_close(rank, functional.effective_rank(features), rtol=1e-5, atol=0)
    dormant = fed_features(DormantUnits(6, threshold=0.1), features, parts).compute()
    assert dormant == functional.dormant_fraction(features, threshold=0.1)
    assert 0 < dormant < 1


def test_rank_of_degenerate_features() -> None:
    line = torch.outer(torch.arange(1.0, 20), torch.arange(1.0, 9))
    assert fed_features(EffectiveRank(8), line, 3).compute().item() == pytest.approx(1, abs=1e-4)
    silent = EffectiveRank(4)
    silent.update(torch.zeros(3, 4))
    assert silent.compute() == 0


def test_seed_interval() -> None:
    metric = SeedInterval()
    values = torch.tensor([[0.1, 0.9], [0.2, 0.7], [0.4, 0.8]])
    for row in values:
        metric.update(row)
    interval = metric.compute()
    low, high = t_interval(values)
    torch.testing.assert_close(interval, {"mean": values.mean(0), "low": low, "high": high})
    with pytest.raises(ValueError, match="expected a value of shape"):
        metric.update(0.5)
    with pytest.raises(ValueError, match="below 1"):
        SeedInterval(confidence=2.0)


def test_metrics_survive_pickling_and_a_state_dict() -> None:
    features = torch.rand(9, 5, generator=torch.Generator().manual_seed(0))
    for kind in (EffectiveRank, DormantUnits):
        metric = fed_features(kind(5), features, 2)
        metric.persistent(True)
        assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
        fresh = kind(5)
        fresh.persistent(True)
        fresh.load_state_dict(metric.state_dict())
        fresh._update_count = 1
        assert fresh.compute() == metric.compute()
        with pytest.raises(ValueError, match=r"\(samples, 5\)"):
            metric.update(torch.rand(3, 4))

"""The measures: golden cases, invariants, what is not measured, and the stateful metrics over them."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from lit_meta.functional import matrix as functional
from lit_meta.metrics import (
    AccuracyMatrix,
    AnytimeAccuracy,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    MinimumAccuracy,
)

NAN = float("nan")
# Made by hand: three experiences; the first recovers a little after the third.
MATRIX = torch.tensor([[0.9, 0.2, 0.0], [0.4, 0.8, 0.3], [0.5, 0.6, 1.0]])
INITIAL = torch.tensor([0.1, 0.05, 0.2])
GOLDEN = {
    AverageAccuracy: (0.5 + 0.6 + 1.0) / 3,
    AnytimeAccuracy: (0.9 + (0.4 + 0.8) / 2 + (0.5 + 0.6 + 1.0) / 3) / 3,
    MinimumAccuracy: (min(0.4, 0.5) + 0.6) / 2,
    Forgetting: ((0.9 - 0.5) + (0.8 - 0.6)) / 2,
    BackwardTransfer: ((0.5 - 0.9) + (0.6 - 0.8)) / 2,
    ForwardTransfer: ((0.2 - 0.05) + (0.3 - 0.2)) / 2,
}


def measure(kind: type[AccuracyMatrix], matrix: Tensor, initial: Tensor = INITIAL) -> float:
    functions = {
        AverageAccuracy: functional.average_accuracy,
        AnytimeAccuracy: functional.anytime_accuracy,
        MinimumAccuracy: functional.minimum_accuracy,
        Forgetting: functional.forgetting,
        BackwardTransfer: functional.backward_transfer,
    }
    if kind is ForwardTransfer:
        return functional.forward_transfer(matrix, initial).item()
    return functions[kind](matrix).item()


def feed(metric: AccuracyMatrix, part: slice = slice(None)) -> AccuracyMatrix:
    """Twenty predictions for every entry of `MATRIX` and `INITIAL`, as many right as the entry says."""
    for row in range(-1, 3):
        for column in range(3):
            right = round(20 * (INITIAL if row < 0 else MATRIX[row])[column].item())
            target = torch.arange(20) % 3
            prediction = torch.where(torch.arange(20) < right, target, (target + 1) % 3)
            shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(row * 3 + column + 9))[part]
            metric.update(None if row < 0 else row, column, prediction[shuffled], target[shuffled])
    return metric


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_values(kind: type[AccuracyMatrix]) -> None:
    assert measure(kind, MATRIX) == pytest.approx(GOLDEN[kind])
    value = feed(kind(3)).compute()
    assert value.ndim == 0
    assert value.item() == pytest.approx(GOLDEN[kind])


def test_the_matrix_is_what_was_fed() -> None:
    metric = feed(AccuracyMatrix(3))
    torch.testing.assert_close(metric.compute(), MATRIX)
    torch.testing.assert_close(metric.initial(), INITIAL)
    torch.testing.assert_close(functional.final_accuracies(metric.compute()), MATRIX[2])


@pytest.mark.parametrize("kind", GOLDEN)
def test_a_stream_under_way_is_measured_at_its_last_row(kind: type[AccuracyMatrix]) -> None:
    under_way = MATRIX.clone()
    under_way[2] = NAN
    expected = {
        AverageAccuracy: (0.4 + 0.8 + 0.3) / 3,
        AnytimeAccuracy: (0.9 + 0.6) / 2,
        MinimumAccuracy: 0.4,
        Forgetting: 0.5,
        BackwardTransfer: -0.5,
        ForwardTransfer: GOLDEN[ForwardTransfer],  # row 1 has been measured on experience 2 already
    }[kind]
    assert measure(kind, under_way) == pytest.approx(expected)


def test_after_one_experience_nothing_can_have_been_forgotten() -> None:
    one = torch.tensor([[0.75]])
    assert functional.forgetting(one) == 0
    assert str(functional.backward_transfer(one).item()) == "0.0"
    assert functional.forward_transfer(one, torch.tensor([0.1])) == 0
    assert functional.anytime_accuracy(one) == functional.average_accuracy(one) == 0.75
    assert functional.minimum_accuracy(one).isnan()


@pytest.mark.parametrize(
    ("kind", "row", "column"),
    (
        (AverageAccuracy, 2, 1),
        (AnytimeAccuracy, 1, 0),
        (MinimumAccuracy, 1, 0),
        (Forgetting, 1, 1),
        (Forgetting, 2, 0),
        (BackwardTransfer, 0, 0),
        (ForwardTransfer, 1, 2),
    ),
)
def test_an_entry_that_was_not_measured_never_counts_as_zero(kind: type[AccuracyMatrix], row: int, column: int) -> None:
    gap = MATRIX.clone()
    gap[row, column] = NAN
    with pytest.raises(ValueError, match=r"1 of \d entries were not measured"):
        measure(kind, gap)


def test_entries_that_do_not_count_may_be_missing() -> None:
    seen_only = MATRIX.clone()
    seen_only[0, 1:] = seen_only[1, 2] = NAN
    for kind in (AverageAccuracy, AnytimeAccuracy, MinimumAccuracy, Forgetting, BackwardTransfer):
        assert measure(kind, seen_only) == pytest.approx(GOLDEN[kind])
    with pytest.raises(ValueError, match="accuracies before training"):
        functional.forward_transfer(MATRIX, torch.full((3,), NAN))


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_bounds_and_relations(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(size, size, generator=generator, dtype=torch.float64)
    initial = torch.rand(size, generator=generator, dtype=torch.float64)
    assert functional.backward_transfer(matrix) == -functional.forgetting(matrix)
    for value in (functional.forgetting(matrix), functional.forward_transfer(matrix, initial)):
        assert -1 <= value <= 1
    for value in (functional.average_accuracy(matrix), functional.anytime_accuracy(matrix)):
        assert matrix.min() - 1e-12 <= value <= matrix.max() + 1e-12
    if size > 1:
        assert functional.minimum_accuracy(matrix) <= matrix[-1, :-1].mean() + 1e-12
    # A network that never changes forgets nothing and transfers nothing.
    constant = initial.expand(size, size)
    assert functional.forgetting(constant) == 0
    assert functional.forward_transfer(constant, initial) == 0
    # What is measured further ahead than the next experience never counts.
    hidden = matrix.clone()
    hidden[torch.ones(size, size, dtype=torch.bool).triu(2)] = NAN
    assert functional.anytime_accuracy(hidden) == functional.anytime_accuracy(matrix)
    assert functional.forward_transfer(hidden, initial) == functional.forward_transfer(matrix, initial)


def test_matrices_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point matrix"):
        functional.average_accuracy(torch.ones(3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="floating-point matrix"):
        functional.average_accuracy(torch.rand(3))
    with pytest.raises(ValueError, match="no accuracy was measured"):
        functional.forgetting(torch.full((2, 2), NAN))
    with pytest.raises(ValueError, match="square"):
        functional.forgetting(torch.rand(1, 3))
    with pytest.raises(ValueError, match=r"expected the accuracies before training to be \(3,\)"):
        functional.forward_transfer(MATRIX, torch.rand(2))


def test_one_training_experience_may_have_several_test_experiences() -> None:
    metric = AverageAccuracy(1, test_experiences=2)
    metric.update(0, 0, torch.tensor([0, 1]), torch.tensor([0, 1]))
    metric.update(0, 1, torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert metric.compute() == 0.75


def test_scores_count_by_their_highest() -> None:
    scores = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    target = torch.arange(30) % 4
    by_scores, by_labels = AccuracyMatrix(1), AccuracyMatrix(1)
    by_scores.update(0, 0, scores, target)
    by_labels.update(0, 0, scores.argmax(1), target)
    assert torch.equal(by_scores.compute(), by_labels.compute())


@pytest.mark.parametrize(
    ("train", "test", "prediction", "target", "message"),
    (
        (3, 0, torch.zeros(2).long(), torch.zeros(2).long(), r"train_experience to be None or 0\.\.2, got 3"),
        (-1, 0, torch.zeros(2).long(), torch.zeros(2).long(), "got -1"),
        (0, 3, torch.zeros(2).long(), torch.zeros(2).long(), r"test_experience to be 0\.\.2"),
        (0, 0, torch.zeros(2).long(), torch.zeros(3).long(), "expected labels"),
        (0, 0, torch.zeros(2, 3, 4), torch.zeros(2).long(), "expected labels"),
        (0, 0, torch.zeros(2), torch.zeros(2).long(), "as integers"),
    ),
)
def test_batches_that_do_not_fit_are_refused(
    train: int, test: int, prediction: Tensor, target: Tensor, message: str
) -> None:
    metric = AccuracyMatrix(3)
    with pytest.raises(ValueError, match=message):
        metric.update(train, test, prediction, target)
    assert metric.total.sum() == 0


@pytest.mark.parametrize("number", (0, -1, 2.0, True))
def test_the_number_of_experiences_must_be_a_positive_integer(number: object) -> None:
    with pytest.raises(ValueError, match="experiences must be a whole number"):
        AccuracyMatrix(number)
    with pytest.raises(ValueError, match="experiences must be a whole number"):
        AccuracyMatrix(2, number)


@pytest.mark.parametrize("kind", (AccuracyMatrix, *GOLDEN))
def test_metrics_survive_pickling_cloning_and_a_state_dict(kind: type[AccuracyMatrix]) -> None:
    metric = feed(kind(3))
    metric.persistent(True)
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        torch.testing.assert_close(copy.compute(), metric.compute())
    fresh = kind(3)
    fresh.persistent(True)
    fresh.load_state_dict(metric.state_dict())
    fresh._update_count = 1  # the counter of calls, which a state dict leaves out and which only warns
    torch.testing.assert_close(fresh.compute(), metric.compute())
    metric.reset()
    assert metric.total.sum() == 0


@pytest.mark.parametrize("kind", (AccuracyMatrix, *GOLDEN))
def test_two_processes_with_half_the_samples_each_agree_with_one(kind: type[AccuracyMatrix]) -> None:
    other = feed(kind(3), slice(0, 7))

    def gather(state: Tensor, group: object = None) -> list[Tensor]:
        # What all_gather gives on process 1: both processes' states, in order of rank.
        name = "correct" if state.data_ptr() == half.correct.data_ptr() else "total"
        return [getattr(other, name), state]

    half = feed(kind(3, dist_sync_fn=gather, distributed_available_fn=lambda: True), slice(7, 20))
    whole = feed(kind(3))
    torch.testing.assert_close(half.compute(), whole.compute())
    torch.testing.assert_close(half.initial(), INITIAL)
    assert half.total[0, 0] == 13, "after the exchange each process has its own counts again"


def test_metrics_of_one_collection_share_their_counts() -> None:
    collection = MetricCollection([AverageAccuracy(3), Forgetting(3), ForwardTransfer(3)])
    feed(collection)
    values = collection.compute()
    assert values["Forgetting"].item() == pytest.approx(GOLDEN[Forgetting])
    assert values["ForwardTransfer"].item() == pytest.approx(GOLDEN[ForwardTransfer])
    assert len(collection.compute_groups) == 1

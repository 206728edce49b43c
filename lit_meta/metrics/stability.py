"""What happens to earlier experiences while a new one is learned, as torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_meta.functional import stability as functional


class AccuracyTrace(Metric):
    """Counts what was predicted right at every evaluation within every training experience.

    The states are counts that add up, as in `AccuracyMatrix`.

    Args:
        experiences: number of training experiences, and of test experiences.
        evaluations: the largest number of evaluations within an experience.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> metric = AccuracyTrace(1, evaluations=2)
        >>> metric.update(0, 0, 0, torch.tensor([1, 1]), torch.tensor([1, 0]))
        >>> metric.update(0, 1, 0, torch.tensor([1, 0]), torch.tensor([1, 0]))
        >>> metric.compute()
        tensor([[[0.5000],
                 [1.0000]]])
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    correct: Tensor
    total: Tensor

    def __init__(self, experiences: int, evaluations: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for what, number in (("experiences", experiences), ("evaluations", evaluations)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"expected a positive number of {what}, got {number!r}")
        self.experiences, self.evaluations = experiences, evaluations
        shape = (experiences, evaluations, experiences)
        self.add_state("correct", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self, train_experience: int, evaluation: int, test_experience: int, prediction: Tensor, target: Tensor
    ) -> None:
        """Counts one batch.

        Args:
            train_experience: the experience that is being learned, counted from 0.
            evaluation: the evaluation within it, counted from 0.
            test_experience: the test experience that the batch is from, counted from 0.
            prediction: predicted labels ``(batch,)``, or scores ``(batch, classes)``, the highest of which counts.
            target: true labels, ``(batch,)``.

        Raises:
            ValueError: if an index is out of range or the shapes do not fit.
        """
        for what, index, number in (
            ("train_experience", train_experience, self.experiences),
            ("evaluation", evaluation, self.evaluations),
            ("test_experience", test_experience, self.experiences),
        ):
            if not 0 <= index < number:
                raise ValueError(f"expected {what} to be 0..{number - 1}, got {index}")
        if target.ndim != 1 or prediction.ndim not in (1, 2) or len(prediction) != len(target):
            raise ValueError(
                "expected labels (batch,) or scores (batch, classes), and targets (batch,), got "
                f"{tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if prediction.ndim == 1 and prediction.is_floating_point():
            raise ValueError("expected predicted labels as integers, got real numbers of shape (batch,)")
        labels = prediction.argmax(1) if prediction.ndim == 2 else prediction
        self.correct[train_experience, evaluation, test_experience] += (labels == target).sum()
        self.total[train_experience, evaluation, test_experience] += len(target)

    def compute(self) -> Tensor:
        """The trace, ``(experiences, evaluations, experiences)``, NaN where nothing was counted."""
        return self.correct.to(torch.get_default_dtype()) / self.total


class StabilityGap(AccuracyTrace):
    """The passing part of forgetting, see `lit_meta.functional.stability.stability_gap`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.stability_gap(super().compute())


class MinimumAccuracyWithin(AccuracyTrace):
    """min-ACC, see `lit_meta.functional.stability.minimum_accuracy_within`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.minimum_accuracy_within(super().compute())


class WorstCaseAccuracy(AccuracyTrace):
    """WC-ACC, see `lit_meta.functional.stability.worst_case_accuracy`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.worst_case_accuracy(super().compute())

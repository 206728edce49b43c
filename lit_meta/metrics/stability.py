"""Forgetting while a new experience is learned, as torchmetrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_meta.functional import stability as functional
from lit_meta.metrics._counts import CorrectCounts
from lit_meta.utils.arguments import require_count


class AccuracyTrace(CorrectCounts):
    """Counts correct predictions at every evaluation within every training experience.

    As in `AccuracyMatrix`, the result does not depend on how samples are split into batches or across processes.

    Args:
        experiences: number of training experiences, and of test experiences.
        evaluations: the largest number of evaluations within an experience.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> import torch
        >>> metric = AccuracyTrace(1, evaluations=2)
        >>> metric.update(0, 0, 0, torch.tensor([1, 1]), torch.tensor([1, 0]))
        >>> metric.update(0, 1, 0, torch.tensor([1, 0]), torch.tensor([1, 0]))
        >>> metric.compute()
        tensor([[[0.5000],
                 [1.0000]]])
    """

    def __init__(self, experiences: int, evaluations: int, **kwargs: Any) -> None:
        require_count("experiences", experiences)
        require_count("evaluations", evaluations)
        super().__init__((experiences, evaluations, experiences), **kwargs)
        self.experiences, self.evaluations = experiences, evaluations

    def update(
        self, train_experience: int, evaluation: int, test_experience: int, prediction: Tensor, target: Tensor
    ) -> None:
        """Counts one batch.

        Args:
            train_experience: the experience that is being learned, counted from 0.
            evaluation: the evaluation within it, counted from 0.
            test_experience: the test experience that the batch is from, counted from 0.
            prediction: predicted labels ``(batch,)``, or scores ``(batch, classes)``, of which the highest counts.
            target: true labels, ``(batch,)``.

        Raises:
            ValueError: if an index is out of range or the shapes do not match.
        """
        for what, index, number in (
            ("train_experience", train_experience, self.experiences),
            ("evaluation", evaluation, self.evaluations),
            ("test_experience", test_experience, self.experiences),
        ):
            if not 0 <= index < number:
                raise ValueError(f"expected {what} to be 0..{number - 1}, got {index}")
        self._count((train_experience, evaluation, test_experience), prediction, target)

    def compute(self) -> Tensor:
        """The trace, ``(experiences, evaluations, experiences)``, NaN where nothing was counted."""
        return self._accuracies()


class StabilityGap(AccuracyTrace):
    """Transient forgetting, see `lit_meta.functional.stability.stability_gap`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.stability_gap(super().compute())


class MinimumAccuracyWithin(AccuracyTrace):
    """min-ACC, see `lit_meta.functional.stability.minimum_accuracy_within`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.minimum_accuracy_within(super().compute())


class AverageAnytimeAccuracy(AccuracyTrace):
    """AAA, see `lit_meta.functional.stability.average_anytime_accuracy`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.average_anytime_accuracy(super().compute())


class WorstCaseAccuracy(AccuracyTrace):
    """WC-ACC, see `lit_meta.functional.stability.worst_case_accuracy`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.worst_case_accuracy(super().compute())

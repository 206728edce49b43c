"""The accuracy matrix of a stream, and the measures taken from it, as torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_meta.functional import matrix as functional


class AccuracyMatrix(Metric):
    """Counts what was predicted right, for every pair of training and test experience.

    The states are counts that add up, so that the result is the same however the samples are divided into
    batches or among processes. Two processes that test on parts of an experience need no more than the usual
    reduction.

    Args:
        experiences: number of training experiences.
        test_experiences: number of test experiences; the number of training experiences where absent.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> metric = AccuracyMatrix(2)
        >>> metric.update(0, 0, torch.tensor([1, 1, 0, 0]), torch.tensor([1, 1, 0, 1]))
        >>> metric.update(1, 0, torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1]))  # logits
        >>> metric.compute()
        tensor([[0.7500,    nan],
                [0.5000,    nan]])
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    correct: Tensor
    total: Tensor

    def __init__(self, experiences: int, test_experiences: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        columns = experiences if test_experiences is None else test_experiences
        for number in (experiences, columns):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"expected a positive number of experiences, got {number!r}")
        self.experiences, self.test_experiences = experiences, columns
        # Row 0 is the state before any training, row i + 1 the one after training experience i.
        shape = (experiences + 1, columns)
        self.add_state("correct", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, train_experience: int | None, test_experience: int, prediction: Tensor, target: Tensor) -> None:
        """Counts one batch.

        Args:
            train_experience: the training experience that was learned last, counted from 0; ``None`` before
            any. test_experience: the test experience that the batch is from, counted from 0. prediction:
            predicted labels ``(batch,)``, or scores ``(batch, classes)``, the highest of which counts.
            target: true labels, ``(batch,)``.

        Raises:
            ValueError: if an experience is out of range or the shapes do not fit.
        """
        if train_experience is not None and not 0 <= train_experience < self.experiences:
            raise ValueError(
                f"expected train_experience to be None or 0..{self.experiences - 1}, got {train_experience}"
            )
        if not 0 <= test_experience < self.test_experiences:
            raise ValueError(f"expected test_experience to be 0..{self.test_experiences - 1}, got {test_experience}")
        if target.ndim != 1 or prediction.ndim not in (1, 2) or len(prediction) != len(target):
            raise ValueError(
                "expected labels (batch,) or scores (batch, classes), and targets (batch,), got "
                f"{tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if prediction.ndim == 1 and prediction.is_floating_point():
            raise ValueError("expected predicted labels as integers, got real numbers of shape (batch,)")
        labels = prediction.argmax(1) if prediction.ndim == 2 else prediction
        row = 0 if train_experience is None else train_experience + 1
        self.correct[row, test_experience] += (labels == target).sum()
        self.total[row, test_experience] += len(target)

    def compute(self) -> Tensor:
        """The accuracy matrix R, ``(experiences, test experiences)``, NaN where nothing was counted."""
        return self._accuracies()[1:]

    def initial(self) -> Tensor:
        """The accuracies before any training, ``(test experiences,)``, NaN where nothing was counted."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self._accuracies()[0]

    def _accuracies(self) -> Tensor:
        # 0 / 0 is NaN, which is what an entry is that was not measured.
        return self.correct.to(torch.get_default_dtype()) / self.total


class AverageAccuracy(AccuracyMatrix):
    """Mean accuracy over the test experiences at the end, see `lit_meta.functional.matrix.average_accuracy`.

    Args:
        experiences: number of training experiences.
        test_experiences: number of test experiences; the number of training experiences where absent.
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = AverageAccuracy(1, test_experiences=2)
        >>> metric.update(0, 0, torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> metric.update(0, 1, torch.tensor([3]), torch.tensor([3]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.average_accuracy(super().compute())


class AnytimeAccuracy(AccuracyMatrix):
    """Mean over the stream of the accuracy on what has been seen.

    See `lit_meta.functional.matrix.anytime_accuracy`.
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.anytime_accuracy(super().compute())


class MinimumAccuracy(AccuracyMatrix):
    """Worst accuracy since learning, averaged, see `lit_meta.functional.matrix.minimum_accuracy`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.minimum_accuracy(super().compute())


class Forgetting(AccuracyMatrix):
    """What was lost since each experience was learned, see `lit_meta.functional.matrix.forgetting`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.forgetting(super().compute())


class BackwardTransfer(AccuracyMatrix):
    """What later experiences did to earlier ones, see `lit_meta.functional.matrix.backward_transfer`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.backward_transfer(super().compute())


class ForwardTransfer(AccuracyMatrix):
    """What earlier experiences did to the next, see `lit_meta.functional.matrix.forward_transfer`.

    Needs the accuracies before any training: `update` with ``train_experience=None``.
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        accuracies = self._accuracies()
        return functional.forward_transfer(accuracies[1:], accuracies[0])

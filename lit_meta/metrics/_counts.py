"""Counts of correct predictions, the state that several measures share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class CorrectCounts(Metric):
    """Total and correct predictions in each cell of an array.

    The states are counts that add up, so the result is the same however samples are split into batches or
    across processes. Processes that each test part of an experience need only the usual reduction.

    Args:
        shape: of the array of cells.
        **kwargs: arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    correct: Tensor
    total: Tensor

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("correct", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def _count(self, cell: tuple[int, ...], prediction: Tensor, target: Tensor) -> None:
        """Adds one batch: labels ``(batch,)`` or scores ``(batch, classes)``, and true labels ``(batch,)``.

        Raises:
            ValueError: if the shapes do not match.
        """
        if target.ndim != 1 or prediction.ndim not in (1, 2) or len(prediction) != len(target):
            raise ValueError(
                "expected labels (batch,) or scores (batch, classes), and targets (batch,), got "
                f"{tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if prediction.ndim == 1 and prediction.is_floating_point():
            raise ValueError("expected predicted labels as integers, got real numbers of shape (batch,)")
        labels = prediction.argmax(1) if prediction.ndim == 2 else prediction
        self.correct[cell] += (labels == target).sum()
        self.total[cell] += len(target)

    def _accuracies(self) -> Tensor:
        # 0 / 0 is NaN, which marks a cell as not measured.
        return self.correct.to(torch.get_default_dtype()) / self.total

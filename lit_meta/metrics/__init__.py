"""Continual-learning measures as torchmetrics."""

from lit_meta.metrics.matrix import (
    AccuracyMatrix,
    AnytimeAccuracy,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    MinimumAccuracy,
)

__all__ = [
    "AccuracyMatrix",
    "AnytimeAccuracy",
    "AverageAccuracy",
    "BackwardTransfer",
    "Forgetting",
    "ForwardTransfer",
    "MinimumAccuracy",
]

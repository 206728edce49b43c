"""Continual-learning measures as torchmetrics."""

from lit_meta.metrics.interval import SeedInterval
from lit_meta.metrics.matrix import (
    AccuracyMatrix,
    AnytimeAccuracy,
    AverageAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    MinimumAccuracy,
)
from lit_meta.metrics.plasticity import DormantUnits, EffectiveRank, Plasticity
from lit_meta.metrics.stability import (
    AccuracyTrace,
    AverageAnytimeAccuracy,
    MinimumAccuracyWithin,
    StabilityGap,
    WorstCaseAccuracy,
)

__all__ = [
    "AccuracyMatrix",
    "AccuracyTrace",
    "AnytimeAccuracy",
    "AverageAccuracy",
    "AverageAnytimeAccuracy",
    "BackwardTransfer",
    "DormantUnits",
    "EffectiveRank",
    "Forgetting",
    "ForwardTransfer",
    "MinimumAccuracy",
    "MinimumAccuracyWithin",
    "Plasticity",
    "SeedInterval",
    "StabilityGap",
    "WorstCaseAccuracy",
]

"""Whether a network can still learn, as torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_meta.functional import plasticity as functional
from lit_meta.metrics.matrix import AccuracyMatrix
from lit_meta.utils.arguments import require_count


class Plasticity(AccuracyMatrix):
    """Accuracy on each experience just after learning it, minus that of a fresh network trained on it alone.

    See `lit_meta.functional.plasticity.plasticity`; `lit_meta.streams.from_scratch.fresh_accuracies` trains the fresh networks.

    Args:
        experiences: number of experiences.
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = Plasticity(1)
        >>> metric.update(0, 0, torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> metric.update_fresh(0, torch.tensor([1, 1]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(-0.5000)
    """

    fresh_correct: Tensor
    fresh_total: Tensor

    def __init__(self, experiences: int, **kwargs: Any) -> None:
        super().__init__(experiences, **kwargs)
        self.add_state("fresh_correct", torch.zeros(experiences, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("fresh_total", torch.zeros(experiences, dtype=torch.long), dist_reduce_fx="sum")

    def update_fresh(self, experience: int, prediction: Tensor, target: Tensor) -> None:
        """Counts one batch of predictions by the fresh network of an experience.

        Args:
            experience: the experience it was trained on, counted from 0.
            prediction: predicted labels ``(batch,)``, or scores ``(batch, classes)``.
            target: true labels, ``(batch,)``.

        Raises:
            ValueError: if the experience is out of range or the shapes do not match.
        """
        counted = AccuracyMatrix(self.experiences)
        counted.update(experience, experience, prediction.cpu(), target.cpu())
        self.fresh_correct += counted.correct[1:].diagonal().to(self.fresh_correct.device)
        self.fresh_total += counted.total[1:].diagonal().to(self.fresh_total.device)

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        fresh = self.fresh_correct.to(torch.get_default_dtype()) / self.fresh_total
        return functional.plasticity(super().compute(), fresh)


class DormantUnits(Metric):
    """Share of a layer's units that are hardly ever active, see `lit_meta.functional.plasticity.dormant_fraction`.

    Args:
        units: number of units of the layer; for a convolution its channels times positions, or its channels if positions
            are averaged first.
        threshold: tau.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: not a positive number of units, or a negative threshold.

    Example:
        >>> metric = DormantUnits(2)
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    activity: Tensor
    samples: Tensor

    def __init__(self, units: int, *, threshold: float = 0.025, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("units", units)
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {threshold}")
        self.units, self.threshold = units, threshold
        self.add_state("activity", torch.zeros(units, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, activity: Tensor) -> None:
        """Adds the outputs of the layer's units, ``(samples, units)``."""
        _check_features(activity, self.units)
        self.activity += activity.detach().abs().sum(0, dtype=torch.float64)
        self.samples += len(activity)

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        if self.samples == 0:
            raise ValueError("no activity has been added yet: call update first")
        means = (self.activity / self.samples).to(torch.get_default_dtype())
        return functional.dormant_fraction(means, threshold=self.threshold)


class EffectiveRank(Metric):
    """Effective rank of a representation, see `lit_meta.functional.plasticity.effective_rank`.

    The state is the matrix of second moments ``H^T H``, so the result does not depend on how samples are batched;
    singular values below about ``4e-8 sqrt(units)`` times the largest are lost in it.

    Args:
        units: number of units of the layer; the state holds units x units numbers in double precision.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: not a positive number of units.

    Example:
        >>> metric = EffectiveRank(3)
        >>> metric.update(torch.eye(3)[:2]); metric.update(torch.eye(3)[2:])
        >>> round(metric.compute().item(), 4)
        3.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    moments: Tensor

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("units", units)
        self.units = units
        self.add_state("moments", torch.zeros(units, units, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds the representation of a batch, ``(samples, units)``."""
        _check_features(features, self.units)
        values = features.detach().to(torch.float64)
        self.moments += values.T @ values

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        eigenvalues = torch.linalg.eigvalsh(self.moments)
        # Rounding turns zero eigenvalues into some 1e-16 of the largest, and their square roots would count.
        noise = 8 * self.units * torch.finfo(torch.float64).eps * eigenvalues.max()
        kept = torch.where(eigenvalues > noise, eigenvalues, torch.zeros_like(eigenvalues))
        return functional.rank_of_spectrum(kept.sqrt()).to(torch.get_default_dtype())


def _check_features(features: Tensor, units: int) -> None:
    if features.ndim != 2 or features.shape[1] != units or not features.is_floating_point():
        raise ValueError(
            f"expected floating-point (samples, {units}), got {features.dtype} of shape {tuple(features.shape)}"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("the features contain NaN or infinite values")

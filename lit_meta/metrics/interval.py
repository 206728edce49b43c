"""Confidence intervals over seeds, as a torchmetric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_meta.functional.interval import t_interval


class SeedInterval(Metric):
    """Mean and Student's interval over seeds, see `lit_meta.functional.interval.t_interval`.

    Args:
        confidence: probability of covering the true mean.
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = SeedInterval()
        >>> for accuracy in (0.5, 0.5, 0.5):
        ...     metric.update(accuracy)
        >>> metric.compute()
        {'mean': tensor(0.5000), 'low': tensor(0.5000), 'high': tensor(0.5000)}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    values: list[Tensor]

    def __init__(self, *, confidence: float = 0.95, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        t_interval(torch.zeros(1), confidence=confidence)  # raises on a value out of range
        self.confidence = confidence
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, value: Tensor | float) -> None:
        """Adds the value of one seed: a number, or a tensor of the same shape each time."""
        row = torch.as_tensor(value, dtype=torch.get_default_dtype())[None]
        if self.values and isinstance(self.values, list) and self.values[0].shape != row.shape:
            raise ValueError(f"expected a value of shape {tuple(self.values[0].shape[1:])}, got {tuple(row.shape[1:])}")
        self.values.append(row)

    def compute(self) -> dict[str, Tensor]:
        """``mean``, ``low`` and ``high``, each of the shape of one value."""
        if len(self.values) == 0:
            raise ValueError("no seed was added yet: call update first")
        values = torch.cat(self.values) if isinstance(self.values, list) else self.values
        low, high = t_interval(values, confidence=self.confidence)
        return {"mean": values.mean(0), "low": low, "high": high}

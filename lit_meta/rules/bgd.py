"""Bayesian gradient descent: a synapse learns as fast as it is uncertain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_meta.rules.base import require_in
from lit_meta.rules.gaussian import GaussianRule


class BGD(GaussianRule):
    r"""Bayesian gradient descent: online variational Bayes with a Gaussian for every synapse.

    With θ = μ + σ ε and g the gradient of the negative log-likelihood of the step's data at θ,

    .. math::
        μ \leftarrow μ - rate \, σ^2 \, E[g], \qquad
        σ \leftarrow σ \sqrt{1 + (\tfrac12 σ E[g ε])^2} - \tfrac12 σ^2 E[g ε]

    Synapses on which the loss curves upward grow certain and learn slowly from then on. No boundary and no task label is
    used. σ only ever falls on average: over very long streams the network stops learning; `MESU` forgets instead.

    Args:
        deviation: σ at the start; the paper uses 0.015 to 0.06.
        rate: η on the mean; 1 is Bayes' own.
        loss_reduction: how the host's loss reduces over the batch, see `GaussianRule`.
        seed: of ε.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Zeno, Golan, Hoffer, Soudry, 2018 (arXiv 1803.10123), equations 9 and 10. Expectations are over as many draws of the
        weights as there are backward passes in a step; the paper takes ten.

    Example:
        >>> BGD(deviation=0.06)
        BGD(deviation=0.06, rate=1.0, loss_reduction='mean', seed=0)
    """

    def __init__(
        self,
        *,
        deviation: float = 0.06,
        rate: float = 1.0,
        loss_reduction: Literal["mean", "sum"] = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__(deviation=deviation, loss_reduction=loss_reduction, seed=seed)
        require_in("rate", rate, 0.0, float("inf"), open_low=True)
        self.rate = rate

    def move(
        self, means: list[Tensor], deviations: list[Tensor], gradients: list[Tensor], correlations: list[Tensor]
    ) -> None:
        variances = torch._foreach_mul(deviations, deviations)
        torch._foreach_addcmul_(means, variances, gradients, value=-self.rate)
        # σ_new = σ (√(1 + a²) − a) with a = ½ σ E[g ε]. For large a the difference would cancel to 0, and a synapse with
        # σ = 0 never learns again: it is taken as 1 / (√(1 + a²) + |a|).
        torch._foreach_mul_(correlations, deviations)
        torch._foreach_mul_(correlations, 0.5)
        growth = torch._foreach_mul(correlations, correlations)
        torch._foreach_add_(growth, 1.0)
        torch._foreach_sqrt_(growth)
        torch._foreach_add_(growth, torch._foreach_abs(correlations))
        for deviation, a, factor in zip(deviations, correlations, growth, strict=True):
            deviation.mul_(torch.where(a > 0, factor.reciprocal(), factor))

"""Bayesian gradient descent: a synapse learns as fast as it is uncertain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_meta.rules._gaussian import GaussianRule, bounded_step
from lit_meta.utils.validation import require_in

# Clamp of a = ½ σ E[g ε]: beyond it the change of σ exceeds any limit, and below it a² is finite.
_FLAT = 1e3
# Limits up to this keep σ_new above a tenth of σ, where √(1 + a²) − a has lost no more than a digit to cancellation.
_PLAIN_LIMIT = 0.9


class BGD(GaussianRule):
    r"""Bayesian gradient descent: online variational Bayes with a Gaussian for every synapse.

    With θ = μ + σ ε and g the gradient of the negative log-likelihood of the step's data at θ,

    .. math::
        μ \leftarrow μ - rate \, σ^2 \, E[g], \qquad
        σ \leftarrow σ \sqrt{1 + (\tfrac12 σ E[g ε])^2} - \tfrac12 σ^2 E[g ε]

    Synapses on which the loss curves upward grow certain and learn slowly from then on. No boundary and no task label is
    used. On average σ only decreases: on very long streams the network stops learning; `MESU` forgets instead.

    Accuracy on permuted MNIST (10 experiences): 88.8 % in 784-50-10, with ten draws, eight samples a step and a deviation of
    2 / √fan-in (`permuted-mnist-mesu-small`); 82.2 ± 2.6 % in 784-1000-1000-10 with one draw, in six epochs; see
    ``docs/rules.md``.

    Args:
        deviation: σ at the start, or with ``scale="fan-in"`` σ times √fan-in; the paper uses 0.015 to 0.06 everywhere.
        scale: ``"absolute"``, or ``"fan-in"``, where each layer starts with its own σ = deviation / √fan-in, as where the
            authors of MESU compare with this rule (there 2 / √fan-in).
        rate: η on the mean; 1 is the Bayesian update.
        limit: the largest change of μ in one step, in units of σ, and of σ as a fraction of itself, in (0, 1); ``inf`` as in
            the equations. While σ is still large, a step on a strongly curved synapse (of an output layer, say) overshoots by
            more than it corrects, and the next one by more still.
        loss_reduction: how the host's loss reduces over the batch, see `GaussianRule`.
        draws: draws of the weights for each batch, see `GaussianRule`; the papers take ten.
        antithetic: whether draws come in mirrored pairs, see `GaussianRule`.
        seed: of ε.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Zeno, Golan, Hoffer, Soudry, 2018 (arXiv 1803.10123), equations 9 and 10. The limit is not in the paper; the authors of
        MESU have one in their implementation of BGD.

    Example:
        >>> BGD(deviation=0.06)
        BGD(deviation=0.06, scale='absolute', rate=1.0, limit=0.5, loss_reduction='mean', draws=1, antithetic=False, seed=0)
    """

    def __init__(
        self,
        *,
        deviation: float = 0.06,
        scale: Literal["absolute", "fan-in"] = "absolute",
        rate: float = 1.0,
        limit: float = 0.5,
        loss_reduction: Literal["mean", "sum"] = "mean",
        draws: int = 1,
        antithetic: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            deviation=deviation,
            loss_reduction=loss_reduction,
            draws=draws,
            antithetic=antithetic,
            seed=seed,
            scale=scale,
        )
        require_in("rate", rate, 0.0, float("inf"), open_low=True)
        if not (0.0 < limit < 1.0 or limit == float("inf")):
            raise ValueError(f"limit must be above 0 and below 1, or inf for none, got {limit!r}")
        self.rate = rate
        self.limit = limit

    def move(
        self, means: list[Tensor], deviations: list[Tensor], gradients: list[Tensor], correlations: list[Tensor]
    ) -> None:
        variances = torch._foreach_mul(deviations, deviations)
        bounds = torch._foreach_mul(deviations, self.limit) if self.limit < 1.0 else None
        bounded_step(means, variances, gradients, -self.rate, bounds)
        # σ_new = σ (√(1 + a²) − a) = σ exp(−asinh a) with a = ½ σ E[g ε].
        torch._foreach_mul_(correlations, deviations)
        torch._foreach_mul_(correlations, 0.5)
        if self.limit <= _PLAIN_LIMIT:  # A tenth of the time of asinh and exp.
            torch._foreach_clamp_min_(correlations, -_FLAT)
            torch._foreach_clamp_max_(correlations, _FLAT)
            factors = list(torch._foreach_mul(correlations, correlations))
            torch._foreach_add_(factors, 1.0)
            torch._foreach_sqrt_(factors)
            torch._foreach_sub_(factors, correlations)
        else:  # The difference would cancel to 0 for large a, and a synapse with σ = 0 never learns again.
            factors = [a.asinh_().neg_().exp_() for a in correlations]
        if self.limit < 1.0:
            torch._foreach_clamp_min_(factors, 1.0 - self.limit)
            torch._foreach_clamp_max_(factors, 1.0 + self.limit)
        torch._foreach_mul_(deviations, factors)

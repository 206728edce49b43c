"""Metaplasticity from synaptic uncertainty: a synapse learns as fast as it is uncertain, and slowly forgets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_meta.rules._gaussian import GaussianRule, bounded_step
from lit_meta.utils.validation import require_in


class MESU(GaussianRule):
    r"""Metaplasticity from synaptic uncertainty: Bayesian learning within a window of memory.

    With C = E[−log-likelihood of the step's data] over weights drawn from N(μ, σ²), prior N(μ₀, σ₀²) and a window of N steps,

    .. math::
        Δμ = -σ^2 \frac{\partial C}{\partial μ} + \frac{σ^2}{N σ_0^2}(μ_0 - μ), \qquad
        Δσ = -\tfrac12 σ^2 \frac{\partial C}{\partial σ} + \frac{σ}{2 N σ_0^2}(σ_0^2 - σ^2)

    The first terms learn, and make a synapse certain where the loss curves; the second let evidence older than about N steps
    fade, so that certainty, and with it rigidity, has a bound. For N → ∞ it is `BGD` with a step of first order in σ. No
    boundary and no task label is used.

    Accuracy on permuted MNIST (10 experiences, one epoch each): 83.9 % in 784-50-10 with its authors' settings and eight
    samples a step (`permuted-mnist-mesu-small`), 91.7 % on the last five; 68.4 ± 2.4 % in 784-1000-1000-10 with the default
    hyperparameters.

    Args:
        deviation: σ at the start, or with ``scale="fan-in"`` σ times √fan-in.
        scale: ``"absolute"``, or ``"fan-in"``, where each layer starts with its own σ = deviation / √fan-in, as in the
            authors' code (there 2 / √fan-in, with a prior deviation of 1).
        window: N, in steps, above 0; ``inf`` forgets nothing.
        prior_mean: μ₀.
        prior_deviation: σ₀, above 0; None takes ``deviation``, which must then be absolute.
        limit: the largest change of μ and of σ in one step, in units of σ; in (0, 1), so that σ stays positive.
        loss_reduction: how the host's loss reduces over the batch, see `GaussianRule`.
        draws: draws of the weights for each batch, see `GaussianRule`; the papers take ten.
        antithetic: whether draws come in mirrored pairs, see `GaussianRule`.
        seed: of ε.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Bonnet, Cottart, Hirtzlin, Januel, Dalgaty, Vianello, Querlioz, Nature Communications 16, 2025 (arXiv 2504.13569),
        equations 11 and 12. The limit on the change is not in the equations but in the authors' code, where μ and σ have it
        too; there the factor ½ of Δσ is a hyperparameter.

    Example:
        >>> MESU(deviation=0.06, window=1e5).prior_mean
        0.0
    """

    def __init__(
        self,
        *,
        deviation: float = 0.06,
        scale: Literal["absolute", "fan-in"] = "absolute",
        window: float = 1e5,
        prior_mean: float = 0.0,
        prior_deviation: float | None = None,
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
        if scale == "fan-in" and prior_deviation is None:
            raise ValueError("with scale='fan-in' the prior has no deviation of its own: give prior_deviation")
        require_in("window", window, 0.0, float("inf"), open_low=True)
        require_in("prior_mean", prior_mean, -1e38, 1e38)
        if prior_deviation is not None:
            require_in("prior_deviation", prior_deviation, 0.0, float("inf"), open_low=True)
        if not 0.0 < limit < 1.0:
            raise ValueError(f"limit must be above 0 and below 1, so that a deviation stays positive, got {limit!r}")
        self.window = window
        self.prior_mean = prior_mean
        self.prior_deviation = prior_deviation
        self.limit = limit

    def move(
        self, means: list[Tensor], deviations: list[Tensor], gradients: list[Tensor], correlations: list[Tensor]
    ) -> None:
        prior = (self.deviation if self.prior_deviation is None else self.prior_deviation) ** 2
        pull = 1.0 / (self.window * prior)
        variances = torch._foreach_mul(deviations, deviations)
        bounds = torch._foreach_mul(deviations, self.limit)
        # ∂C/∂μ + (μ − μ₀)/(N σ₀²), then times −σ².
        torch._foreach_add_(gradients, means, alpha=pull)
        if self.prior_mean:
            torch._foreach_add_(gradients, -pull * self.prior_mean)
        bounded_step(means, variances, gradients, -1.0, bounds)
        # ½ σ² ∂C/∂σ + ½ σ (σ² − σ₀²)/(N σ₀²) = ½ σ² [∂C/∂σ + (σ − σ₀²/σ)/(N σ₀²)]
        torch._foreach_add_(correlations, deviations, alpha=pull)
        torch._foreach_add_(correlations, torch._foreach_reciprocal(deviations), alpha=-pull * prior)
        bounded_step(deviations, variances, correlations, -0.5, bounds)

"""Shrink and perturb: after each step all weights shrink a little and receive a little noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept
from lit_meta.rules._randomness import draw_normal
from lit_meta.utils.validation import require_in


class ShrinkAndPerturb(Rule):
    r"""After each optimizer step ``θ ← (1 − shrink) · θ + noise · ξ``, ξ ~ N(0, 1).

    Shrinking undoes saturation, noise gives dormant units something to learn from. No boundary and no task label is used, and
    nothing is remembered but the state of the random generator. It keeps a network able to learn; it does not keep what was
    learned.

    Args:
        shrink: share of every parameter that is lost in a step, in [0, 1).
        noise: standard deviation of ξ's effect, at least 0, in units of a parameter.
        seed: of ξ.

    Raises:
        ValueError: a hyperparameter out of range, or both 0.

    Source:
        Ash & Adams, On warm-starting neural network training, NeurIPS 2020, where it is done once before new data; at every
        step, as here, in Dohare et al., Nature 632, 2024, and Elsayed & Mahmood, ICLR 2024.

    Example:
        >>> ShrinkAndPerturb(shrink=1e-4, noise=1e-3)
        ShrinkAndPerturb(shrink=0.0001, noise=0.001, seed=0)
    """

    needs_inputs = False

    def __init__(self, *, shrink: float = 1e-4, noise: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        if not 0.0 <= shrink < 1.0:
            raise ValueError(f"shrink must be at least 0 and below 1, got {shrink!r}")
        require_in("noise", noise, 0.0, float("inf"))
        if shrink == noise == 0.0:
            raise ValueError("shrink and noise are both 0, so that the rule has no effect: give one of them")
        self.shrink = shrink
        self.noise = noise
        self.seed = seed

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {"generator/*": Kept((None,), nonzero=True)} if self.noise else {}

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        parameters = [p.detach() for p in synapses.parameters]
        torch._foreach_mul_(parameters, 1.0 - self.shrink)
        if self.noise:
            torch._foreach_add_(parameters, draw_normal(self.state, parameters, self.seed), alpha=self.noise)

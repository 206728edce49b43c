"""Elastic weight consolidation: a synapse stiffens by how much past experiences' outputs depend on it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_meta.core.rule import Experience, Synapses
from lit_meta.functional.fisher import diagonal_fisher
from lit_meta.rules._penalty import PenaltyRule
from lit_meta.utils.validation import require_in, require_one_of


class EWC(PenaltyRule):
    r"""Elastic weight consolidation, offline and online.

    After each experience the diagonal Fisher information F of the network is measured on that experience's data, from
    per-sample gradients (it does not depend on the batch size), and further learning is pulled back by the penalty

    .. math:: \tfrac12 \, strength \sum_i Ω_i (θ_i - θ^*_i)^2

    applied as its gradient, so that the logged loss stays the task's. Libraries differ by a factor of 2 in what they
    call λ: ``strength`` is λ in the formula above, with the ½.

    - ``mode="offline"``: one penalty for each past experience. Their sum is again quadratic, with Ω = Σ F and
      θ* = Σ F θ / Σ F, so that memory and time do not grow with the number of experiences, and nothing is approximated.
    - ``mode="online"``: Ω ← decay · Ω + F, and θ* is the latest.

    The pull is stable only while learning rate × ``strength`` × Ω < 2, see `PenaltyRule`, whose scalars say where that
    stands. Where labels are ``"sample"`` or ``"exact"``, none are read.

    Where the labels' error has no gradient the empirical Fisher information is zero, and the rule does nothing (its scalar
    ``stiffness`` stays 0). Spiking networks with squared error can end an experience of one class like that, their outputs
    firing at every step (surrogate derivative 0) or never (error 0): use ``labels="exact"`` for them.

    Args:
        strength: λ, at least 0; in units of loss per squared change of parameter per unit of information.
        mode: ``"offline"`` or ``"online"``.
        decay: γ of the online form, in [0, 1]; must stay 1 for ``mode="offline"``.
        labels: whose log-likelihood is differentiated: the data's own label (``"true"``, the "empirical Fisher"), one
            drawn from the network's prediction (``"sample"``), or the expectation over it (``"exact"``).
        loss: the loss whose Fisher information it is: ``"cross_entropy"`` for logits, ``"mse"`` for squared error.
        samples: use at most this many samples of an experience; None for all.
        seed: of the labels drawn by ``labels="sample"``.

    Raises:
        ValueError: a hyperparameter out of range, or without effect in the chosen mode.

    Source:
        Kirkpatrick et al., PNAS 114(13), 2017, equation 3; online form: Schwarz et al., ICML 2018, equation 9. Many
        implementations take F from the gradient of a batch mean, which vanishes as batches grow; this one does not.

    Example:
        >>> EWC(strength=100.0)
        EWC(strength=100.0, mode='offline', decay=1.0, labels='true', loss='cross_entropy', samples=None, seed=0)
    """

    needs_boundaries = True

    def __init__(
        self,
        *,
        strength: float = 1.0,
        mode: Literal["offline", "online"] = "offline",
        decay: float = 1.0,
        labels: Literal["true", "sample", "exact"] = "true",
        loss: Literal["cross_entropy", "mse"] = "cross_entropy",
        samples: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(strength=strength)
        require_one_of("mode", mode, ("offline", "online"))
        require_in("decay", decay, 0.0, 1.0)
        require_one_of("labels", labels, ("true", "sample", "exact"))
        require_one_of("loss", loss, ("cross_entropy", "mse"))
        if mode == "offline" and decay != 1.0:
            raise ValueError(f"decay={decay} has no effect with mode='offline': use mode='online'")
        if samples is not None and samples < 1:
            raise ValueError(f"samples must be at least 1 or None, got {samples}")
        self.mode = mode
        self.decay = decay
        self.labels = labels
        self.loss = loss
        self.samples = samples
        self.seed = seed
        self.needs_labels = labels == "true"

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        self.consolidate(synapses, self._fisher(synapses, experience), decay=self.decay, merge=self.mode == "offline")

    def _fisher(self, synapses: Synapses, experience: Experience) -> dict[str, Tensor]:
        generator = None
        if self.labels == "sample":
            generator = torch.Generator(synapses.parameters[0].device).manual_seed(self.seed)
        sums: dict[str, Tensor] = {
            n: torch.zeros_like(p) for n, p in zip(synapses.names, synapses.parameters, strict=True)
        }
        count = 0
        for inputs, targets in experience:
            room = inputs.shape[0] if self.samples is None else min(inputs.shape[0], self.samples - count)
            if room == 0:
                break
            found = diagonal_fisher(
                experience.network,
                inputs[:room],
                None if targets is None else targets[:room],
                labels=self.labels,
                loss=self.loss,
                generator=generator,
            )
            for name in sums:
                sums[name].add_(found[name], alpha=room)
            count += room
        if count == 0:
            raise ValueError("EWC consolidates on the experience's data, and there is none")
        return {name: total / count for name, total in sums.items()}

"""What rules share that pull parameters back to where they were, each in proportion to its importance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from lit_meta.functional.penalty import add_quadratic_penalty_gradient_, pull_to_anchors_, quadratic_penalty
from lit_meta.rules.base import Rule, Synapses, require_in, require_one_of
from lit_meta.scratch import Scratch

Pull = Literal["gradient", "proximal"]


class PenaltyRule(Rule):
    r"""A rule with the penalty ``½ · strength · Σ Ω (θ − θ*)²``.

    The state holds ``"importance"`` Ω and ``"anchor"`` θ* once something was consolidated. A parameter without a memory (it
    came with the present experience) is not pulled; the memory of a frozen parameter is kept until it learns again.

    How it is applied:

    - ``pull="gradient"``: its gradient is added to the task's before the optimizer's step, as published.
    - ``pull="proximal"``: the optimizer steps on the task's gradient alone, and then every parameter is drawn back,
      θ ← (θ + kΩθ*) / (1 + kΩ) with k = ``strength``, which now stands for λ times a step size. It is to the penalty what
      decoupled weight decay is to weight decay. Under Adam it matters: a strong penalty fills the second moment, and an
      important parameter then moves about its anchor by a whole learning rate a step. No strength is too large for it.

    With ``"gradient"``, descent with learning rate η is stable along a parameter only while η · strength · Ω < 2. The logged
    scalar ``stiffness`` is the largest strength · Ω: where it comes near 2/η, use a smaller η or strength.

    Args:
        strength: at least 0.
        pull: ``"gradient"`` or ``"proximal"``.
    """

    def __init__(self, *, strength: float, pull: Pull = "gradient") -> None:
        super().__init__()
        require_in("strength", strength, 0.0, float("inf"))
        require_one_of("pull", pull, ("gradient", "proximal"))
        self.strength = strength
        self.pull = pull
        self._differences = Scratch()

    def overrides(self, event: str) -> bool:
        # Each form of the pull answers one of these events, and the other must cost nothing.
        if event in ("gradient", "update"):
            return self.pull == ("gradient" if event == "gradient" else "proximal")
        return super().overrides(event)

    def gradient(self, synapses: Synapses) -> None:
        if "importance" not in self.state or self.strength == 0.0:
            return
        known = self._remembered(synapses)
        if len(known):
            anchors, importances = self._memory(known)
            add_quadratic_penalty_gradient_(
                known.gradients,
                known.parameters,
                anchors,
                importances,
                self.strength,
                scratch=self._differences.copy(known.names, known.parameters),
            )

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        if self.strength == 0.0:
            return
        known = self._remembered(synapses)
        if len(known):
            anchors, importances = self._memory(known)
            share = self._differences.copy(known.names, importances)
            pull_to_anchors_([p.detach() for p in known.parameters], anchors, importances, self.strength, scratch=share)

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        known = self._remembered(synapses)
        if not len(known):
            return {}
        anchors, importances = self._memory(known)
        if self.pull == "proximal":  # Its strength is in other units, and nothing can become unstable.
            return {"distance": quadratic_penalty([p.detach() for p in known.parameters], anchors, importances, 1.0)}
        largest = torch.stack([importance.max() for importance in importances]).max()
        penalty = quadratic_penalty([p.detach() for p in known.parameters], anchors, importances, self.strength)
        return {"penalty": penalty, "stiffness": self.strength * largest}

    def consolidate(
        self, synapses: Synapses, found: Mapping[str, Tensor], *, decay: float = 1.0, merge: bool = False
    ) -> None:
        """Adds importances to the memory, and anchors the parameters where they are.

        Args:
            synapses: the parameters.
            found: their new importances, at least 0.
            decay: factor on the old importances.
            merge: keep every old penalty beside the new one instead of moving its anchor. A sum of quadratics is again
                quadratic, with Ω = Σ Ω_k and θ* = Σ Ω_k θ_k / Σ Ω_k, so nothing is approximated.
        """
        importances, anchors = self._held("importance"), self._held("anchor")
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            total, anchor = found[name], parameter.detach().clone()
            if name in importances:
                old = decay * importances[name]
                total = total + old
                if merge:
                    # Where nothing was ever important the anchor is free; it stays at the present value.
                    share = torch.where(total > 0, old / total, torch.zeros_like(total))
                    anchor += share * (anchors[name] - anchor)
            importances[name], anchors[name] = total, anchor
        self.state["importance"] = importances
        self.state["anchor"] = anchors

    def _held(self, quantity: str) -> dict[str, Tensor]:
        return dict(self.state[quantity]) if quantity in self.state else {}

    def _remembered(self, synapses: Synapses) -> Synapses:
        """The synapses with a memory: a parameter that appeared with the present experience has none yet."""
        if "importance" not in self.state:
            return Synapses(synapses.network, (), [])
        held = self.state["importance"]
        if all(name in held for name in synapses.names):
            return synapses
        pairs = [(n, p) for n, p in zip(synapses.names, synapses.parameters, strict=True) if n in held]
        return Synapses(synapses.network, tuple(n for n, _ in pairs), [p for _, p in pairs])

    def _memory(self, synapses: Synapses) -> tuple[list[Tensor], list[Tensor]]:
        return self.state.tensors("anchor", synapses.names), self.state.tensors("importance", synapses.names)

"""Base class of rules that pull parameters back to their past values, each in proportion to its importance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_meta.core._buffers import Scratch
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.functional.penalty import add_quadratic_penalty_gradient_, quadratic_penalty
from lit_meta.utils.validation import require_in


class PenaltyRule(Rule):
    r"""A rule with the penalty ``½ · strength · Σ Ω (θ − θ*)²``, applied as its gradient.

    The state holds ``"importance"`` Ω and ``"anchor"`` θ* after the first consolidation. A parameter without a memory (new in
    the present experience) is not pulled; the memory of a frozen parameter is kept until it learns again.

    Gradient descent with learning rate η is stable along a parameter only while η · strength · Ω < 2. The logged scalar
    ``stiffness`` is the largest strength · Ω: if it approaches 2/η, use a smaller η or strength.

    Args:
        strength: at least 0.
    """

    stages_memory = True

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        require_in("strength", strength, 0.0, float("inf"))
        self.strength = strength
        self._differences = Scratch()

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

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {
            **kept_of_parameters(network, "importance", nonzero=True),
            **kept_of_parameters(network, "anchor", nonzero=True),
        }

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        known = self._remembered(synapses)
        if not len(known):
            return {}
        anchors, importances = self._memory(known)
        largest = torch.stack([importance.max() for importance in importances]).max()
        penalty = quadratic_penalty([p.detach() for p in known.parameters], anchors, importances, self.strength)
        return {"penalty": penalty, "stiffness": self.strength * largest}

    def consolidate(
        self, synapses: Synapses, new: Mapping[str, Tensor], *, decay: float = 1.0, merge: bool = False
    ) -> None:
        """Adds importances to the memory, and anchors the parameters at their present values.

        Args:
            synapses: the parameters.
            new: their new importances, at least 0.
            decay: factor on the old importances.
            merge: keep every old penalty beside the new one instead of moving its anchor. A sum of quadratics is again
                quadratic, with Ω = Σ Ω_k and θ* = Σ Ω_k θ_k / Σ Ω_k, so nothing is approximated.
        """
        importances, anchors = self._by_name("importance"), self._by_name("anchor")
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            total, anchor = new[name], parameter.detach().clone()
            if name in importances:
                old = decay * importances[name]
                total = total + old
                if merge:
                    # Without any importance the anchor is arbitrary; it stays at the present value.
                    share = torch.where(total > 0, old / total, torch.zeros_like(total))
                    anchor += share * (anchors[name] - anchor)
            importances[name], anchors[name] = total, anchor
        self.state["importance"] = importances
        self.state["anchor"] = anchors

    def _by_name(self, quantity: str) -> dict[str, Tensor]:
        return dict(self.state[quantity]) if quantity in self.state else {}

    def _remembered(self, synapses: Synapses) -> Synapses:
        """The synapses with a memory: a parameter that is new in the present experience has none yet."""
        if "importance" not in self.state:
            return Synapses(synapses.network, (), [])
        importances = self.state["importance"]
        if all(name in importances for name in synapses.names):
            return synapses
        pairs = [(n, p) for n, p in zip(synapses.names, synapses.parameters, strict=True) if n in importances]
        return Synapses(synapses.network, tuple(n for n, _ in pairs), [p for _, p in pairs])

    def _memory(self, synapses: Synapses) -> tuple[list[Tensor], list[Tensor]]:
        return self.state.tensors("anchor", synapses.names), self.state.tensors("importance", synapses.names)

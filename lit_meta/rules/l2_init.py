"""Regenerative regularisation: parameters are drawn back to where they started, so that the network stays plastic."""

from __future__ import annotations

import torch
from torch import nn

from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.utils.validation import require_in


class L2Init(Rule):
    r"""L2 regularisation towards the initial parameters, ``½ · strength · Σ (θ − θ₀)²``, applied as its gradient.

    Weights that the task does not hold elsewhere return to their initial values, where units are neither dormant nor
    saturated. A synapse remembers θ₀, one number. No boundary and no task label is used. It keeps a network able to learn;
    it does not keep what was learned.

    Args:
        strength: of the penalty, at least 0, in units of loss per squared change of parameter; 2λ of the paper.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Kumar, Marklund, Van Roy, Maintaining plasticity in continual learning via regenerative regularization, 2023
        (arXiv 2308.11958), equation 1; there without the ½.

    Example:
        >>> L2Init(strength=0.01)
        L2Init(strength=0.01)
    """

    needs_inputs = False
    stages_memory = True

    def __init__(self, *, strength: float = 0.001) -> None:
        super().__init__()
        require_in("strength", strength, 0.0, float("inf"))
        self.strength = strength
        # A row that a head has gained started where it is: it is anchored when the next experience begins.
        self.state.fills["initial"] = float("nan")

    def begin_experience(self, synapses: Synapses) -> None:
        initial = dict(self.state["initial"]) if "initial" in self.state else {}
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            value = parameter.detach()
            initial[name] = (
                torch.where(initial[name].isnan(), value, initial[name]) if name in initial else value.clone()
            )
        self.state["initial"] = initial

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return kept_of_parameters(network, "initial")

    def join(self, synapses: Synapses) -> None:
        self.begin_experience(synapses)

    @torch.no_grad()
    def gradient(self, synapses: Synapses) -> None:
        distance = torch._foreach_sub(
            [p.detach() for p in synapses.parameters], self.state.tensors("initial", synapses.names)
        )
        torch._foreach_add_(synapses.gradients, distance, alpha=self.strength)

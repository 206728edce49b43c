"""A rule: synapses lose plasticity with use."""

import torch

from lit_meta.rules import Rule, Synapses


class Freezing(Rule):
    """Gradients shrink with the distance that a synapse has travelled: g ← g / (1 + rate · Σ|Δθ|).

    Args:
        rate: how fast plasticity is lost, per unit of distance.
    """

    def __init__(self, *, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate

    def begin_experience(self, synapses: Synapses) -> None:
        if "travelled" not in self.state:
            pairs = zip(synapses.names, synapses.parameters, strict=True)
            self.state["travelled"] = {name: torch.zeros_like(parameter) for name, parameter in pairs}

    def gradient(self, synapses: Synapses) -> None:
        travelled = self.state.tensors("travelled", synapses.names)
        for distance, gradient in zip(travelled, synapses.gradients, strict=True):
            gradient.div_(1.0 + self.rate * distance)

    def update(self, synapses: Synapses, before: list[torch.Tensor]) -> None:
        travelled = self.state.tensors("travelled", synapses.names)
        for distance, parameter, old in zip(travelled, synapses.parameters, before, strict=True):
            distance.add_((parameter - old).abs())

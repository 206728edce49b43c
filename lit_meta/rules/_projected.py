"""What rules share that let each layer's weights change in some directions of its input only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from lit_meta.core.rule import Rule, Synapses
from lit_meta.rules._receptive import Receptive, receptive_layers


class ProjectedRule(Rule):
    """Replaces the optimizer's step of every weight layer by its projection.

    The step, and not the gradient, is projected: under plain SGD the two are the same, and under momentum, weight decay
    or Adam, whose steps leave the directions of the gradient, old outputs stay protected all the same.
    """

    needs_boundaries = True
    limits: ClassVar[Mapping[str, str]] = {"shared": "every layer has inputs of its own to protect"}

    def __init__(self) -> None:
        super().__init__()
        self._plan: tuple[object, list[Receptive]] | None = None

    def projected(self, layer: Receptive, step: Tensor) -> Tensor | None:
        """The part of a step that is allowed, or None where all of it is.

        Args:
            layer: the layer.
            step: (outputs, width), the bias's first where there is one.
        """
        raise NotImplementedError

    def begin_experience(self, synapses: Synapses) -> None:
        self._plan = synapses.network, receptive_layers(synapses, type(self).__name__)

    def layers(self, synapses: Synapses) -> list[Receptive]:
        """The weight layers; looked up again where the stream goes on from a checkpoint inside an experience."""
        if self._plan is None or self._plan[0] is not synapses.network:
            self._plan = synapses.network, receptive_layers(synapses, type(self).__name__)
        return self._plan[1]

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        index = {name: i for i, name in enumerate(synapses.names)}
        for layer in self._known_layers(synapses):
            weight, bias = index.get(layer.weight), None if layer.bias is None else index.get(layer.bias)
            if weight is None and bias is None:
                continue
            if weight is None or (layer.bias is not None and bias is None):
                raise ValueError(
                    f"{type(self).__name__} projects the weight and the bias of layer {layer.name!r} together: both need a "
                    "gradient and the same optimizer"
                )
            parameter = synapses.parameters[weight]
            step = (parameter - before[weight]).flatten(1)
            if bias is not None:
                step = torch.cat([(synapses.parameters[bias] - before[bias]).unsqueeze(1), step], 1)
            allowed = self.projected(layer, step)
            if allowed is None:
                continue
            if bias is not None:
                torch.add(before[bias], allowed[:, 0], out=synapses.parameters[bias])
                allowed = allowed[:, 1:]
            torch.add(before[weight], allowed.reshape(parameter.shape), out=parameter)

    def _known_layers(self, synapses: Synapses) -> list[Receptive]:
        # `synapses` holds one optimizer's parameters, so a plan is made from the network's own.
        if self._plan is not None and self._plan[0] is synapses.network:
            return self._plan[1]
        pairs = [(n, p) for n, p in synapses.network.named_parameters() if p.requires_grad]
        return self.layers(Synapses(synapses.network, tuple(n for n, _ in pairs), [p for _, p in pairs]))


def grown(square: Tensor, width: int, name: str, rule: str) -> Tensor:
    """A projector for a layer that has gained inputs, which no old input has used."""
    old = square.shape[0]
    if width < old:
        raise ValueError(f"layer {name!r} sees {width} inputs, but {rule} remembers {old}: a layer cannot lose inputs")
    new = torch.eye(width, dtype=square.dtype, device=square.device)
    new[:old, :old] = square
    return new

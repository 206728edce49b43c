"""Metaplasticity of binarised networks: the further a hidden weight is from 0, the harder it is to bring back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from lit_meta.core.layers import weight_layers
from lit_meta.core.rule import Layer, Rule, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional.binary import shrinking_step_factor
from lit_meta.networks.binary import BinaryConv2d, BinaryLinear
from lit_meta.utils.validation import require_in, require_one_of


class BinaryMetaplasticity(Rule):
    r"""Binarised synaptic metaplasticity: steps that would shrink a hidden weight are scaled down by its size.

    A binary network computes with sign(Wʰ); how far the hidden weight Wʰ is from 0 says how often the sign has proved
    useful. For the optimizer's step ΔWʰ (Adam's, after its normalisation):

    .. math:: ΔW^h ← ΔW^h · \begin{cases} 1 - \tanh^2(m |W^h|) & ΔW^h · W^h < 0 \\ 1 & \text{otherwise} \end{cases}

    No boundary of experiences and no task label is needed, and no memory besides Wʰ itself.

    Accuracy on permuted MNIST (six experiences, two binary layers of 1,000, two epochs each): 70.4 ± 3.5 %, below the target of
    95 %; see ``docs/rules-projection.md``.

    Args:
        metaplasticity: m, at least 0: with 0 the optimizer's steps are taken as they are, and as it grows steps
            that shrink a weight vanish.
        layers: ``"all"``: the weights of every Linear, convolution and embedding layer, binary or not; ``"binary"``:
            those of `BinaryLinear` and `BinaryConv2d` only, which the network must then have. In a layer of real
            weights the rule preserves their signs, not the layer's function.

    Raises:
        ValueError: a hyperparameter out of range; or, when an experience begins, no layer to act on.

    Source:
        Laborieux, Ernoult, Hirtzlin, Querlioz, Nature Communications 12, 2549, 2021: algorithm 1, f_meta; m = 1.35, Adam
        with 0.005. As in the authors' optimizer, biases and normalisation parameters learn freely. They find shrinking
        steps by the sign of Adam's first moment, here it is that of the step itself: without weight decay the same.

    Example:
        >>> BinaryMetaplasticity(metaplasticity=1.35)
        BinaryMetaplasticity(metaplasticity=1.35, layers='all')
    """

    stages_memory = True

    def __init__(self, *, metaplasticity: float = 1.35, layers: Literal["all", "binary"] = "all") -> None:
        super().__init__()
        require_in("metaplasticity", metaplasticity, 0.0, float("inf"))
        require_one_of("layers", layers, ("all", "binary"))
        self.metaplasticity = metaplasticity
        self.layers = layers
        self._weights: frozenset[int] | None = None

    def begin_experience(self, synapses: Synapses) -> None:
        self._weights = self._find(synapses.network)

    def reads_weights(self, network: nn.Module) -> Iterable[Layer]:
        return self._layers(network)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {}  # The hidden weights are the memory.

    def join(self, synapses: Synapses) -> None:
        """All layers are known, whether they learn or not."""

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        if self._weights is None:  # The stream was resumed from a checkpoint inside an experience.
            self._weights = self._find(synapses.network)
        if self.metaplasticity == 0.0:
            return
        for parameter, hidden in zip(synapses.parameters, before, strict=True):
            if id(parameter) in self._weights:
                step = parameter - hidden
                factor = shrinking_step_factor(hidden, step, metaplasticity=self.metaplasticity)
                # With a factor of 1 the optimizer's own value is kept, bit for bit.
                parameter.copy_(torch.where(factor < 1, torch.addcmul(hidden, factor, step), parameter))

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """The mean factor of shrinking steps."""
        weights = [p for p in synapses.parameters if self._weights is not None and id(p) in self._weights]
        if not weights:
            return {}
        shares = torch.cat(
            [shrinking_step_factor(p, -p, metaplasticity=self.metaplasticity).detach().flatten() for p in weights]
        )
        return {"plasticity": shares.mean()}

    def _find(self, network: nn.Module) -> frozenset[int]:
        return frozenset(id(layer.module.weight) for layer in self._layers(network))

    def _layers(self, network: nn.Module) -> list[Layer]:
        kinds = (BinaryLinear, BinaryConv2d)
        layers = [x for x in weight_layers(network) if self.layers == "all" or isinstance(x.module, kinds)]
        if not layers:
            raise ValueError(
                "the network has no BinaryLinear or BinaryConv2d layer: use lit_meta.networks.BinaryMLP, or layers='all'"
            )
        return layers

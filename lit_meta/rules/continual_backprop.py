"""Continual backpropagation: units of little use are born again, a few at a time, so that the network stays plastic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lit_meta.core.layers import weight_layers
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Experience, Layer, Rule, Synapses
from lit_meta.core.state import Kept
from lit_meta.utils.validation import require_count, require_in


class ContinualBackprop(Rule):
    r"""Backpropagation that goes on initialising: the least useful old units of a layer are replaced by new ones.

    A hidden unit i has an age and a running utility, what it contributes to the next layer,

    .. math:: u_i \leftarrow decay \cdot u_i + (1 - decay) \, \overline{|h_i|} \sum_k |w_{ik}|

    (h the unit's output, averaged over batch and positions, w its outgoing weights). In each step a layer has
    ``rate`` · (units older than ``maturity``) more units to replace; whenever that has added up to one, the mature unit of
    the least utility gets new incoming weights, drawn as at the start, a bias of 0, outgoing weights of 0 (so that it does
    not disturb the output), age 0 and utility 0. No boundary and no task label is used. It keeps a network able to learn; it
    does not keep what was learned.

    The rule serves networks whose weight layers (Linear or convolution) follow one another, each one's units being
    the next one's inputs, flattened or not. That is tried on the first batch of every experience: with the outgoing weights
    of a unit at 0, its incoming ones must not matter.

    Args:
        rate: ρ, the share of mature units that is replaced in a step, in (0, 1].
        decay: η of the running utility, in [0, 1).
        maturity: m, steps for which a new unit is protected, at least 0.
        gain: new incoming weights are uniform on ± gain / √fan-in, above 0; 1 is how PyTorch and our networks begin.
        seed: of these.

    Raises:
        ValueError: a hyperparameter out of range; when an experience begins, a network of other layers or of one
            layer, or one whose layers do not follow one another.

    Source:
        Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood, Sutton, Loss of plasticity in deep continual learning, Nature 632,
        2024, algorithm 1 (contribution utility). The moments that an optimizer keeps of a replaced unit's weights are not
        reset, as the authors do for Adam: a rule does not reach into the optimizer.

    Example:
        >>> ContinualBackprop(rate=1e-4).maturity
        100
    """

    needs_inputs = False
    needs_data = False
    limits: ClassVar[Mapping[str, str]] = {
        "distributed": "each process would replace other units, by the batches that it has seen",
    }

    def __init__(
        self,
        *,
        rate: float = 1e-4,
        decay: float = 0.99,
        maturity: int = 100,
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_in("rate", rate, 0.0, 1.0, open_low=True)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay!r}")
        require_count("maturity", maturity, 0)
        require_in("gain", gain, 0.0, float("inf"), open_low=True)
        self.rate = rate
        self.decay = decay
        self.maturity = maturity
        self.gain = gain
        self.seed = seed
        self._chain: dict[str, tuple[Layer, Layer]] = {}
        self._activity: dict[str, Tensor] = {}

    def sets_weights(self, network: nn.Module) -> list[Layer]:
        return [layer for layer in weight_layers(network) if any(p.requires_grad for p in layer.module.parameters())]

    def begin_experience(self, synapses: Synapses) -> None:
        self._chain = {}
        for layer, receiver in pairwise(weight_layers(synapses.network)):
            if not (_learns(layer.module, synapses) and _learns(receiver.module, synapses)):
                continue
            produced, taken = _outputs(layer), _inputs(receiver)
            if taken % produced:
                raise ValueError(
                    f"ContinualBackprop replaces units whose receiving layer is the next one, and {receiver.name!r} takes "
                    f"{taken} inputs where {layer.name!r} has {produced} units: its layers do not follow one another"
                )
            self._chain[receiver.name] = (layer, receiver)
        if not self._chain:
            raise ValueError(
                "ContinualBackprop replaces hidden units, and this network has no hidden layer that trains"
            )
        memory = {quantity: dict(self.state[quantity]) if quantity in self.state else {} for quantity in _QUANTITIES}
        for layer, _ in self._chain.values():
            like = _weight(layer)
            for quantity in ("age", "utility"):
                # Units that a layer has gained are new ones.
                old = memory[quantity].get(layer.name, torch.zeros(0, device=like.device))
                memory[quantity][layer.name] = nn.functional.pad(old, (0, _outputs(layer) - len(old)))
            memory["due"].setdefault(layer.name, torch.zeros((), device=like.device))
        for quantity, by_layer in memory.items():
            self.state[quantity] = by_layer

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        if not self._chain:  # The stream was resumed from a checkpoint inside an experience.
            self.begin_experience(synapses)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        trained = [p for p in network.parameters() if p.requires_grad]
        kept = {"generator/*": Kept((None,), always=False)}
        for layer, receiver in pairwise(weight_layers(network)):
            if all(any(p is part.module.weight for p in trained) for part in (layer, receiver)):
                for quantity in ("age", "utility"):
                    kept[encode_key(quantity, layer.name)] = Kept((_outputs(layer),))
                kept[encode_key("due", layer.name)] = Kept(())
        return kept

    def join(self, synapses: Synapses) -> None:
        raise ValueError(
            f"{synapses.names[0]!r} was unfrozen inside an experience, and ContinualBackprop must know all layers that train "
            "when the experience begins: unfreeze between experiences"
        )

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        batch = next(iter(experience.batches()))
        with torch.no_grad():
            # A head of zeros would hide everything; whoever rehearses restores it.
            head = _weight(weight_layers(synapses.network)[-1])
            drawn = torch.randn(head.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            head.copy_(drawn.to(head) / math.sqrt(head[0].numel()))
            for layer, receiver in self._chain.values():
                incoming, outgoing = _weight(layer)[0], _outgoing(layer, receiver)[:, 0]
                before = incoming.clone(), outgoing.clone()
                outgoing.zero_()
                results = []
                for change in (0.0, 1.0, -2.0):  # Of both signs, since a unit may be silent in one of them.
                    incoming += change
                    results.append([output.clone() for output in experience.outputs(batch)])
                incoming.copy_(before[0])
                outgoing.copy_(before[1])
                if not all(map(_same, results[0], results[1])) or not all(map(_same, results[0], results[2])):
                    raise ValueError(
                        f"a unit of {layer.name!r} reaches the output by another way than the weights of {receiver.name!r} (a "
                        "skip connection, a normalisation over units, attention), so that it cannot be replaced unnoticed"
                    )

    def layer_input(self, layer: Layer, inputs: Tensor) -> None:
        if layer.name in self._chain:
            self._activity[layer.name] = inputs

    def leave_batch(self, synapses: Synapses) -> None:
        self._activity = {}

    def restore(self, synapses: Synapses) -> None:
        self._activity = {}

    @torch.no_grad()
    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        activity, self._activity = self._activity, {}
        for name, (layer, receiver) in self._chain.items():
            if name not in activity:
                continue
            age, utility = self.state["age"][layer.name], self.state["utility"][layer.name]
            age += 1
            outgoing = _outgoing(layer, receiver)
            contribution = _by_unit(activity[name], layer, receiver) * outgoing.abs().sum(
                (0, *range(3, outgoing.dim()))
            )
            utility.mul_(self.decay).add_(contribution.sum(-1), alpha=1.0 - self.decay)
            mature = age > self.maturity
            due = self.state["due"][layer.name]
            due += self.rate * mature.sum()
            count = min(int(due), int(mature.sum()))
            if count:
                due -= count
                worst = torch.where(mature, utility, math.inf).argsort()[:count]
                self._replace(layer, outgoing, worst)
                age[worst], utility[worst] = 0.0, 0.0

    def _replace(self, layer: Layer, outgoing: Tensor, chosen: Tensor) -> None:
        weight, bias = _weight(layer), layer.module.bias
        bound = self.gain / math.sqrt(weight[0].numel())
        generator = torch.Generator()
        if "generator" in self.state:
            generator.set_state(self.state.overall["generator"].cpu())
        else:
            generator.manual_seed(self.seed)
        drawn = torch.rand((len(chosen), *weight.shape[1:]), generator=generator, dtype=torch.float64)
        self.state.overall["generator"] = generator.get_state()
        weight[chosen] = ((2.0 * drawn - 1.0) * bound).to(weight)
        if isinstance(bias, Tensor):
            bias.detach()[chosen] = 0.0
        outgoing[:, chosen] = 0.0

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        """The mean age of hidden units, in steps."""
        if "age" not in self.state:
            return {}
        return {"mean_age": torch.cat([age.flatten() for age in self.state["age"].values()]).mean()}


_QUANTITIES = ("age", "utility", "due")


def _learns(module: nn.Module, synapses: Synapses) -> bool:
    plain = isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not module.transposed)
    if not plain or getattr(module, "groups", 1) != 1:
        raise ValueError(
            f"ContinualBackprop replaces units of Linear layers and convolutions without groups, and the network has a "
            f"{type(module).__name__}"
        )
    return any(parameter is module.weight for parameter in synapses.parameters)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def _weight(layer: Layer) -> Tensor:
    weight = layer.module.weight
    assert isinstance(weight, Tensor)  # As `_learns` has found.
    return weight.detach()


def _outputs(layer: Layer) -> int:
    return _weight(layer).shape[0]


def _inputs(layer: Layer) -> int:
    return _weight(layer).shape[1]


def _outgoing(layer: Layer, receiver: Layer) -> Tensor:
    """A view of the receiver's weights, (outputs, units, features of a unit, kernel...)."""
    return _weight(receiver).unflatten(1, (_outputs(layer), -1))


def _by_unit(inputs: Tensor, layer: Layer, receiver: Layer) -> Tensor:
    """Mean |h| over batch and positions, (units, features of a unit)."""
    if isinstance(receiver.module, _ConvNd):
        positions = len(receiver.module.kernel_size)
        features = inputs.flatten(-positions).movedim(-2, -1)
    else:
        features = inputs
    return features.reshape(-1, features.shape[-1]).abs().mean(0).unflatten(0, (_outputs(layer), -1))

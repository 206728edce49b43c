"""Base class of rules that let each layer's weights change only in some directions of its input."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, apart
from lit_meta.functional._counting import uncounted
from lit_meta.rules._coverage import Coverage, coverage
from lit_meta.rules._receptive import Receptive
from lit_meta.utils.validation import require_one_of

Rest = Literal["freeze", "train", "refuse"]


class ProjectedRule(Rule):
    """Replaces the optimizer's step of every weight layer by its projection.

    The step, and not the gradient, is projected: under plain SGD the two are the same, and under momentum, weight decay
    or Adam, whose steps leave the directions of the gradient, old outputs are protected too.

    Layers are Linear, convolutions (of any kind) and embeddings, whose output is linear in their weight for inputs that are
    seen when they are called. What else is trainable has no such inputs: scales and shifts of normalisation, class tokens,
    position embeddings kept as a parameter, recurrent weights, shared and parametrized weights. These are the rest.

    Args:
        rest: what becomes of the rest. ``"freeze"``: it learns in the first experience it takes part in and is kept as it is
            from then on; normalisation that keeps running statistics uses those of the first experience from then on.
            ``"train"``: it goes on learning, and statistics go on moving: what is projected is protected, old outputs as
            a whole are not. ``"refuse"``: a network with such parameters or statistics is refused.
    """

    needs_boundaries = True
    needs_inputs = False
    # Whether the rule can look into attention that computes with layers it does not call.
    sees_attention: ClassVar[bool] = True
    stages_memory = True
    lasting = frozenset({"_plan", "_start", "_kept", "_stopped", "_switched"})

    def __init__(self, *, rest: Rest = "freeze") -> None:
        super().__init__()
        require_one_of("rest", rest, ("freeze", "train", "refuse"))
        self.rest = rest
        self._plan: tuple[nn.Module, Coverage] | None = None
        self._kept: dict[str, tuple[slice, ...] | None] = {}
        self._stopped: list[nn.Module] = []
        self._switched: list[nn.Module] = []
        self._start: dict[str, Tensor] = {}

    def coverage(self, network: nn.Module) -> dict[str, str]:
        """What the rule does for each trainable parameter of a network.

        Returns:
            parameter name to ``"projected"``, or to why it cannot be.
        """
        plan = coverage(_trainable(network), attention=self.sees_attention)
        projected = {n: "projected" for layer in plan.layers for n in (layer.weight, layer.bias) if n is not None}
        return {**projected, **plan.rest}

    def projected(self, layer: Receptive, step: Tensor) -> Tensor | None:
        """The part of a step that is allowed, or None where all of it is.

        Args:
            layer: the layer.
            step: (outputs, width), the bias's first where there is one; (groups, outputs, width) where there are groups.
        """
        raise NotImplementedError

    def free(self, layer: Receptive) -> Tensor | None:
        """The share of a step that each row of an embedding may make, (vocabulary,), or None where all may make all."""
        raise NotImplementedError

    def begin_experience(self, synapses: Synapses) -> None:
        self._make_plan(synapses)

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        self.layers(synapses)
        for module in self._stopped:
            # Hosts put the whole network into training mode at any time.
            if module.training:
                module.training = False
                self._switched.append(module)

    def layers(self, synapses: Synapses) -> list[Receptive]:
        """The layers that are projected; searched again if the stream was resumed inside an experience."""
        if self._plan is None or self._plan[0] is not synapses.network:
            with uncounted():
                self._make_plan(synapses)
        assert self._plan is not None
        return self._plan[1].layers

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
            if layer.weight in self._kept:
                continue
            parameter = synapses.parameters[weight]
            if layer.one_hot:
                if (share := self.free(layer)) is not None:
                    share = share.to(parameter).unsqueeze(1)
                    torch.addcmul(before[weight], parameter - before[weight], share, out=parameter)
                continue
            step = layer.matrix(
                parameter - before[weight], None if bias is None else synapses.parameters[bias] - before[bias]
            )
            allowed = self.projected(layer, step)
            if allowed is None:
                continue
            change, bias_change = layer.parts(allowed)
            if bias is not None and bias_change is not None:
                torch.add(before[bias], bias_change, out=synapses.parameters[bias])
            torch.add(before[weight], change, out=parameter)
        for name, old in self._kept.items():
            if (i := index.get(name)) is None:
                continue
            if old is None:
                synapses.parameters[i].copy_(before[i])
            else:
                synapses.parameters[i][old] = before[i][old]

    def leave_experience(self) -> None:
        for module in self._switched:
            module.training = True
        self._stopped, self._switched = [], []

    def keep_rest(self, synapses: Synapses, seen: Collection[str]) -> None:
        """Remembers what has learned in the experience that ends and cannot be projected, so that it is kept from now on.

        Args:
            synapses: the parameters.
            seen: names of the layers whose inputs were seen. Others that have changed nevertheless compute with their weight
                without being called, so that their inputs are unknown.

        Raises:
            ValueError: there are layers of the last kind, and ``rest="refuse"``.
        """
        assert self._plan is not None
        plan = self._plan[1]
        hidden = [layer for layer in plan.layers if layer.name not in seen and self._has_moved(layer)]
        if hidden and self.rest == "refuse":
            raise ValueError(
                f"{type(self).__name__}(rest='refuse') never saw the inputs of layer {hidden[0].name!r}, which has learned: "
                "call the layer instead of computing with its weight, or choose rest='freeze'"
            )
        names = {*plan.rest, *(n for layer in hidden for n in (layer.weight, layer.bias) if n is not None)}
        if self.rest != "freeze" or not (names or plan.statistics):
            return
        kept = dict(self.memory("kept"))
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            if name in names:
                kept[apart(name)] = torch.tensor(parameter.shape, device=parameter.device)
        for name in plan.statistics:
            kept[apart(name)] = torch.zeros(0, dtype=torch.long, device=synapses.parameters[0].device)
        self.state["kept"] = kept

    def _has_moved(self, layer: Receptive) -> bool:
        start = self._start.get(layer.name)
        return start is not None and not torch.equal(start, _fingerprint(layer.parameter))

    def _make_plan(self, synapses: Synapses) -> None:
        plan = coverage(synapses, attention=self.sees_attention)
        if self.rest == "refuse":
            self._refuse(plan)
        self._plan = synapses.network, plan
        self._start = {layer.name: _fingerprint(layer.parameter) for layer in plan.layers}
        self._kept = {}
        kept = self.memory("kept")
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            if apart(name) in kept and self.rest == "freeze":
                old = tuple(kept[apart(name)].tolist())
                self._kept[name] = None if old == tuple(parameter.shape) else tuple(slice(size) for size in old)
        self._stopped = [module for name, module in plan.statistics.items() if apart(name) in kept]

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        """What is kept of the rest; a rule adds what it keeps of its layers."""
        parameters = {encode_key("kept", apart(name)): p.dim() for name, p in network.named_parameters()}
        modules = {encode_key("kept", apart(name)): 0 for name, _ in network.named_modules()}
        return {key: Kept((size,), always=False) for key, size in {**modules, **parameters}.items()}

    def receptive(self, network: nn.Module) -> list[Receptive]:
        """The layers of a network that the rule projects."""
        return coverage(_trainable(network), attention=self.sees_attention).layers

    def memory(self, quantity: str) -> dict[str, Tensor]:
        """One quantity of the state; empty before the rule remembers any."""
        return self.state[quantity] if quantity in self.state else {}  # noqa: SIM401

    def kept_share(self, synapses: Synapses) -> dict[str, Tensor]:
        """The share of trainable parameters that are kept since they cannot be projected, where there are any."""
        if not self._kept:
            return {}
        kept = sum(p.numel() for n, p in zip(synapses.names, synapses.parameters, strict=True) if n in self._kept)
        return {"kept": torch.tensor(kept / sum(p.numel() for p in synapses.parameters))}

    def _refuse(self, plan: Coverage) -> None:
        name = type(self).__name__
        for parameter, reason in plan.rest.items():
            raise ValueError(
                f"{name}(rest='refuse') protects what Linear, convolution and embedding layers compute, and {parameter!r} is "
                f"{reason} ({len(plan.rest)} such parameters): freeze it with requires_grad_(False), use a network without "
                "it, or choose rest='freeze', which lets it learn in the first experience only"
            )
        for module, statistics in plan.statistics.items():
            raise ValueError(
                f"{name}(rest='refuse') keeps old outputs, and {type(statistics).__name__} {module!r} moves statistics of its "
                "own in training: use another normalisation, or choose rest='freeze', which stops them after the first "
                "experience"
            )

    def _known_layers(self, synapses: Synapses) -> list[Receptive]:
        # `synapses` holds one optimizer's parameters, so a plan is made from the network's own.
        if self._plan is not None and self._plan[0] is synapses.network:
            return self._plan[1].layers
        return self.layers(_trainable(synapses.network))


def _trainable(network: nn.Module) -> Synapses:
    pairs = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    return Synapses(network, tuple(n for n, _ in pairs), [p for _, p in pairs])


def _fingerprint(parameter: Tensor) -> Tensor:
    """Two numbers by which a changed parameter is recognised."""
    values = parameter.detach().double()
    return torch.stack([values.sum(), values.square().sum()])


def grown(square: Tensor, width: int, name: str, rule: str) -> Tensor:
    """A projector for a layer that has gained inputs, which no old input has used."""
    old = square.shape[-1]
    if width < old:
        raise ValueError(f"layer {name!r} sees {width} inputs, but {rule} remembers {old}: a layer cannot lose inputs")
    new = torch.eye(width, dtype=square.dtype, device=square.device).expand(*square.shape[:-2], width, width).clone()
    new[..., :old, :old] = square
    return new


def gained(counts: Tensor, width: int, name: str, rule: str) -> Tensor:
    """Counts for an embedding that has gained inputs; these have never occurred."""
    if width < len(counts):
        raise ValueError(
            f"embedding {name!r} has {width} rows, but {rule} remembers {len(counts)}: an embedding cannot lose rows"
        )
    return torch.nn.functional.pad(counts, (0, width - len(counts)))

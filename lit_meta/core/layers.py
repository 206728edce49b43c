"""The layers of a network as rules see them: those with weights, and those that belong to another layer's block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

WEIGHT_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
)
_AUXILIARY: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


@runtime_checkable
class NormalizesContrast(Protocol):
    """A weight layer that normalises the contrast of each patch before it applies its weights.

    A rule that learns from the layer's inputs (`lit_meta.rules.CriticalPeriod`) then normalises them in the same way.

    Attributes:
        contrast: patch variance attributed to noise, above 0.
    """

    contrast: float


@runtime_checkable
class AdaptsToDrive(Protocol):
    """A weight layer whose weight directions are fixed, and whose units only adapt gain and threshold to their drive.

    Attributes:
        drive_threshold: firing threshold of a unit's drive, in its standard deviations.
    """

    drive_threshold: float


@dataclass(frozen=True)
class Layer:
    """One weight layer (Linear, convolution, embedding) of the network.

    Attributes:
        name: the module's name, relative to the network.
        module: the module.
        receiver: the weight layer that receives the output of the block beginning with this one; None if unknown.
    """

    name: str
    module: nn.Module
    receiver: nn.Module | None = None


def units(layer: Layer | nn.Module, values: Tensor) -> int:
    """The dimension of the units: features of a Linear layer or an embedding are last, channels come before positions.

    If the layer that receives the values is known, it decides, since the values are in its layout.

    Args:
        layer: the layer that the values come from or go to.
        values: with a batch dimension, (batch, ..., features) or (batch, channels, positions...).

    Example:
        >>> units(nn.Linear(4, 8), torch.zeros(2, 5, 8)), units(nn.Conv2d(1, 4, 3), torch.zeros(2, 4, 6, 6))
        (2, 1)
    """
    module = (layer.receiver or layer.module) if isinstance(layer, Layer) else layer
    positions = len(module.kernel_size) if isinstance(module, _ConvNd) else 0
    # Flattened outputs of a convolution are features like any others.
    return values.dim() - 1 - positions if values.dim() > positions else values.dim() - 1


def uncompiled(network: nn.Module) -> nn.Module:
    """The network inside the wrapper of `torch.compile`, if any, so that names do not depend on the wrapper."""
    return network._orig_mod if isinstance(network, torch._dynamo.OptimizedModule) else network


def weight_layers(network: nn.Module) -> list[Layer]:
    """The weight layers of ``network``, in order of registration.

    Raises:
        ValueError: there is none.

    Example:
        >>> [layer.name for layer in weight_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))]
        ['0', '2']
    """
    layers = [Layer(name, module) for name, module in network.named_modules() if isinstance(module, WEIGHT_LAYERS)]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has no weight layer (Linear, convolution or embedding), so there is nothing to learn"
        )
    return layers


def auxiliary_layers(network: nn.Module) -> Iterator[Layer]:
    """Trainable modules that belong to the block in which they are used, such as normalisation layers.

    Raises:
        ValueError: there is a trainable module of another kind.
    """
    weights = {
        id(part)
        for module in network.modules()
        if isinstance(module, WEIGHT_LAYERS) and parametrize.is_parametrized(module)
        for part in module.modules()
    }
    for name, module in network.named_modules():
        if (
            isinstance(module, WEIGHT_LAYERS)
            or id(module) in weights
            or not any(p.requires_grad for p in module.parameters(recurse=False))
        ):
            continue
        if not isinstance(module, _AUXILIARY):
            raise ValueError(
                f"module {name or 'the network itself'!r} ({type(module).__name__}) holds parameters that are not in a "
                "Linear, convolution, embedding or normalisation layer: a local rule cannot tell which block they "
                "belong to. Use a network of such layers, or freeze the module (requires_grad_(False))"
            )
        yield Layer(name, module)


def check_unshared(layers: list[Layer]) -> None:
    """Checks that no two layers share a trainable parameter.

    Raises:
        ValueError: two of them do.
    """
    owners: dict[int, str] = {}
    for layer in layers:
        for parameter in layer.module.parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if id(parameter) in owners:
                raise ValueError(
                    f"layers {owners[id(parameter)]!r} and {layer.name!r} share a parameter: a local rule has one error for "
                    "each layer, so shared weights are not supported"
                )
            owners[id(parameter)] = layer.name


def check_plain(network: nn.Module, layer: Layer, rule: str, *, tied: bool) -> None:
    """Checks that the weight and bias of a layer are parameters of its own, which keep the values written to them.

    Args:
        network: the network, other layers of which may share them.
        layer: the layer.
        rule: name of the rule that works on them, for the message.
        tied: whether other modules may hold the same parameter.

    Raises:
        ValueError: they are computed from other parameters (weight_norm, spectral_norm, pruning), or shared with other modules.

    Example:
        >>> network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
        >>> network[1].weight = network[0].weight
        >>> check_plain(network, Layer("1", network[1]), "StreamingLDA", tied=False)
        Traceback (most recent call last):
        ...
        ValueError: StreamingLDA sets the weight of layer '1', which is that of module '0' too: give the layer one of its own
    """
    own = layer.module._parameters
    for part in ("weight", "bias"):
        # Not by attribute access: that would compute it, and change the state of a spectral norm.
        hooked = own.get(part) is None and layer.module.__dict__.get(part) is not None
        if not hooked and not parametrize.is_parametrized(layer.module, part):
            continue
        sources = [
            name for name, _ in layer.module.named_parameters() if name.startswith((f"{part}_", "parametrizations"))
        ]
        raise ValueError(
            f"{rule} works on the {part} of layer {layer.name!r} itself, but it is computed from other parameters "
            f"({', '.join(sources) or 'a parametrization'}; as weight_norm, spectral_norm and pruning do): take that off the "
            "layer first (torch.nn.utils.parametrize.remove_parametrizations, or its own remove function)"
        )
    if tied:
        return
    for name, module in network.named_modules():
        for part in ("weight", "bias") if module is not layer.module else ():
            parameter = own.get(part)
            if parameter is not None and any(_same_memory(parameter, other) for other in module._parameters.values()):
                raise ValueError(
                    f"{rule} sets the {part} of layer {layer.name!r}, which is that of module {name!r} too: give the layer one "
                    "of its own"
                )


def _same_memory(parameter: Tensor, other: Tensor | None) -> bool:
    if other is None or parameter is other:
        return other is not None
    return parameter.device == other.device and parameter.data_ptr() == other.data_ptr() != 0


def fingerprint(network: nn.Module) -> list[tuple[str, int, tuple[bool, ...]]]:
    """What a set of hooks depends on: the modules with parameters and which parameters are trainable."""
    return [
        (name, id(module), tuple(p.requires_grad for p in own))
        for name, module in network.named_modules()
        if (own := list(module.parameters(recurse=False)))
    ]


def compiled_parts(network: nn.Module, layers: list[Layer]) -> list[str]:
    """The trainable weight layers inside compiled modules, whose hooks may not be called."""
    roots = [
        module
        for module in network.modules()
        if uncompiled(module) is not module or getattr(module, "_compiled_call_impl", None) is not None
    ]
    inside = {id(module) for root in roots for module in root.modules()}
    return [
        layer.name
        for layer in layers
        if id(layer.module) in inside and any(p.requires_grad for p in layer.module.parameters(recurse=False))
    ]

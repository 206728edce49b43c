"""The layers of a network as a rule sees them: which hold weights, and which belong to a block of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

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


@dataclass(frozen=True)
class Layer:
    """One weight layer (Linear, convolution, embedding) of the network.

    Attributes:
        name: the module's name, relative to the network.
        module: the module.
    """

    name: str
    module: nn.Module


def uncompiled(network: nn.Module) -> nn.Module:
    """The network itself where it comes wrapped by `torch.compile`, so that names do not depend on the wrapping."""
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
    """Trainable modules that belong to the block they are used in, such as normalisation layers.

    Raises:
        ValueError: a trainable module of another kind.
    """
    for name, module in network.named_modules():
        if isinstance(module, WEIGHT_LAYERS) or not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        if not isinstance(module, _AUXILIARY):
            raise ValueError(
                f"module {name or 'the network itself'!r} ({type(module).__name__}) holds parameters that are not in a "
                "Linear, convolution, embedding or normalisation layer: a local rule cannot tell which block they "
                "belong to. Use a network of such layers, or freeze the module (requires_grad_(False))"
            )
        yield Layer(name, module)


def check_unshared(layers: list[Layer]) -> None:
    """Holds that no two layers share a trainable parameter.

    Raises:
        ValueError: they do.
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


def fingerprint(network: nn.Module) -> list[tuple[str, int, tuple[bool, ...]]]:
    """What a set of hooks depends on: the modules with parameters, and which of these are trainable."""
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

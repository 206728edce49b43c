"""Which parameters of a network a projection of inputs can protect, and which it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.spectral_norm import SpectralNorm

from lit_meta.core.rule import Synapses
from lit_meta.rules._receptive import (
    AttentionInput,
    AttentionOutput,
    Convolution,
    Lookup,
    Receptive,
    TransposedConvolution,
    TransposedLinear,
)
from lit_meta.utils.modes import evaluating

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False)
class Coverage:
    """The parameters of a network that a rule which projects steps can and cannot protect.

    Attributes:
        layers: those whose steps can be projected.
        rest: names of the other trainable parameters, and why they cannot be projected.
        statistics: modules, by name, that update statistics of their own in training.
    """

    layers: list[Receptive]
    rest: dict[str, str]
    statistics: dict[str, nn.Module]


def coverage(synapses: Synapses, *, attention: bool) -> Coverage:
    """Sorts the trainable parameters of a network.

    Args:
        synapses: the network and its trainable parameters.
        attention: whether the rule can look into `nn.MultiheadAttention`, which computes with layers it does not call.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        >>> names, parameters = zip(*network.named_parameters())
        >>> plan = coverage(Synapses(network, names, list(parameters)), attention=True)
        >>> [layer.width for layer in plan.layers], sorted(plan.rest)
        ([4], ['1.bias', '1.weight'])
    """
    network = synapses.network
    name_of = {id(p): n for n, p in zip(synapses.names, synapses.parameters, strict=True)}
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in network.named_modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append((name, module))

    def own(parameter: Tensor | None) -> str | None:
        """Name of a parameter that is trainable and in one place only."""
        return None if len(owners.get(id(parameter), ())) != 1 else name_of.get(id(parameter))

    layers = []
    for kind, name, module, weight, bias in _candidates(network, attention):
        full = own(weight)
        if full is not None and isinstance(weight, nn.Parameter):
            layers.append(kind(name, module, weight, full, own(bias)))
    known = {name for layer in layers for name in (layer.weight, layer.bias)}
    rest = {
        name: _reason(parameter, owners[id(parameter)])
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True)
        if name not in known
    }
    return Coverage(layers, rest, {n: m for n, m in network.named_modules() if _moves_statistics(m)})


def _candidates(
    network: nn.Module, attention: bool
) -> Iterator[tuple[type[Receptive], str, nn.Module, Tensor | None, Tensor | None]]:
    """Layers by kind, with what they compute with as weight and as bias."""
    uncalled = {id(module.out_proj) for module in network.modules() if isinstance(module, nn.MultiheadAttention)}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        own = module._parameters
        if isinstance(module, nn.MultiheadAttention):
            if attention:
                yield AttentionInput, prefix + "in_proj", module, own.get("in_proj_weight"), own.get("in_proj_bias")
                last = module.out_proj._parameters
                yield AttentionOutput, prefix + "out_proj", module, last.get("weight"), last.get("bias")
        elif id(module) not in uncalled and (kind := _kind(module)) is not None:
            yield kind, name, module, own.get("weight"), own.get("bias")


def _kind(module: nn.Module) -> type[Receptive] | None:
    if isinstance(module, nn.Embedding):
        return Lookup if type(module).forward is nn.Embedding.forward else None
    kind: type[Receptive] | None = None
    if isinstance(module, nn.Linear):
        kind = Receptive
    elif isinstance(module, _CONVOLUTIONS):
        kind = Convolution
    elif isinstance(module, _TRANSPOSED):
        kind = TransposedConvolution
    elif type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        kind = TransposedLinear
    if kind is None or type(module).forward in (
        nn.Linear.forward,
        *(t.forward for t in (*_CONVOLUTIONS, *_TRANSPOSED)),
    ):
        return kind
    return kind if _computes_its_matrix(kind, module) else None


def _computes_its_matrix(kind: type[Receptive], module: nn.Module) -> bool:
    """Tries a layer with a forward of its own: one that computes with another function of its weight cannot be projected."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if not isinstance(weight, nn.Parameter):
        return False
    layer = kind("", module, weight, "weight", None if bias is None else "bias")
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        extent = [3 + gap * (size - 1) for size, gap in zip(module.kernel_size, module.dilation, strict=True)]
        shape = (1, module.in_channels, *extent)
    else:
        shape = (2, layer.width - (bias is not None))
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64).to(weight)
    with torch.no_grad():
        try:
            output = type(module).forward(module, inputs)
            expected = layer.rows(inputs) @ layer.matrix(weight, bias).mT
        except (RuntimeError, TypeError, ValueError):
            return False
    if not isinstance(output, Tensor):
        return False
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        # (1, channels, *positions) -> (groups, positions, channels of a group)
        output = output.reshape(layer.groups, -1, output.shape[2:].numel()).mT
        output = output if layer.groups > 1 else output[0]
    tolerance = 1e-2 if weight.dtype in (torch.float16, torch.bfloat16) else 1e-4
    return output.shape == expected.shape and torch.allclose(output, expected, rtol=tolerance, atol=tolerance)


def _reason(parameter: Tensor, owners: list[tuple[str, nn.Module]]) -> str:
    if len(owners) > 1:
        return f"shared by {' and '.join(repr(name) for name, _ in owners)}"
    name, module = owners[0]
    if ".parametrizations." in f".{name}.":
        return f"a parametrization of {name.split('.parametrizations.')[0]!r}"
    weight = module._parameters.get("weight")
    if parameter is module._parameters.get("bias") and weight is not None and not weight.requires_grad:
        return f"the bias of {name!r}, whose weight is frozen"
    return f"a parameter of {type(module).__name__} {name!r}" if name else f"a parameter of {type(module).__name__}"


def _moves_statistics(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):
        return module.track_running_stats and module.running_mean is not None
    # Power iteration, which refines its vectors whenever the weight is computed in training mode.
    return isinstance(module, torch.nn.utils.parametrizations._SpectralNorm) or any(
        isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()
    )


@contextmanager
def recording(network: nn.Module, layers: list[Receptive]) -> Iterator[dict[str, list[Tensor]]]:
    """Records the inputs of each layer, as rows, during forward passes in evaluation mode.

    Yields:
        layer name to a list of (..., rows, width), one entry for each call of the layer; to be cleared by the reader.
    """
    seen: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    open_calls: set[int] = set()

    def hook_of(layer: Receptive) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if id(module) in open_calls:
                return  # A nested call, by which `rows_of_call` looks inside the module.
            open_calls.add(id(module))
            try:
                seen[layer.name].append(layer.rows_of_call(arguments, keywords))
            finally:
                open_calls.discard(id(module))

        return hook

    handles = [layer.module.register_forward_pre_hook(hook_of(layer), with_kwargs=True) for layer in layers]
    # The fused path of attention calls none of the modules that it replaces.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(network):
            yield seen
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for handle in handles:
            handle.remove()

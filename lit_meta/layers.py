"""Watching the weight layers of a network, and cutting the backward chain between them.

The input of every weight layer ends a block. It is detached, so that each block has a graph of its own, and kept,
so that the block can learn from a local error at that point. A parameter belongs to the first such point downstream
of it; parameters with none downstream belong to the head and learn from the loss. Nothing needs to be known of the
network beforehand: branches, residual sums and auxiliary parameters (normalisation, PReLU) fall into place by the
graph that the forward pass leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

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


@dataclass
class _Capture:
    """A point where a block ends: its output, and the parameters that were used up to here."""

    layer: Layer
    output: Tensor
    parameters: list[tuple[str, nn.Parameter]]


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


class EvaluationWatch:
    """Forward pre-hooks that let rules bring weights up to date before a network in evaluation mode uses them.

    Args:
        network: the network to watch.
        synchronize: called before every forward pass of a weight layer in evaluation mode; must be quick where nothing
            has changed.
    """

    def __init__(self, network: nn.Module, synchronize: Callable[[], None]) -> None:
        self._handles = [
            layer.module.register_forward_pre_hook(_BeforeEvaluation(layer.module, synchronize))
            for layer in weight_layers(network)
        ]

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _BeforeEvaluation:
    """Does nothing in a copy of the module: a copied or unpickled network has no rule that learns in it."""

    def __init__(self, module: nn.Module | None = None, synchronize: Callable[[], None] | None = None) -> None:
        self._module = module
        self._synchronize = synchronize

    def __call__(self, module: nn.Module, arguments: tuple[object, ...]) -> None:
        if self._synchronize is not None and module is self._module and not module.training:
            self._synchronize()

    def __reduce__(self) -> tuple[type[_BeforeEvaluation], tuple[()]]:
        return type(self), ()


class LayerWatch:
    """Forward pre-hooks on the weight layers of one network; inert except between `start` and `stop`.

    Args:
        network: the network to watch.
        detach: cut the backward chain at every weight layer and keep the blocks' outputs.
        on_input: called with each layer and its input in a training forward pass.

    Raises:
        ValueError: no weight layer, or (with ``detach``) a module whose parameters cannot be assigned to a block.
    """

    def __init__(
        self, network: nn.Module, *, detach: bool, on_input: Callable[[Layer, Tensor], None] | None = None
    ) -> None:
        self._detach = detach
        self._on_input = on_input
        self._active = False
        self._handles: list[RemovableHandle] = []
        self._captures: list[_Capture] = []
        self._pending: list[tuple[str, nn.Parameter]] = []
        self._seen: set[str] = set()
        self._last: Layer | None = None
        for layer in weight_layers(network):
            self._handles.append(layer.module.register_forward_pre_hook(self._pre_hook(layer)))
        if detach:
            self._watch_auxiliary(network)

    def _watch_auxiliary(self, network: nn.Module) -> None:
        for name, module in network.named_modules():
            if isinstance(module, WEIGHT_LAYERS) or not list(module.parameters(recurse=False)):
                continue
            if not any(p.requires_grad for p in module.parameters(recurse=False)):
                continue
            if not isinstance(module, _AUXILIARY):
                raise ValueError(
                    f"module {name or 'the network itself'!r} ({type(module).__name__}) holds parameters that are not in a "
                    "Linear, convolution, embedding or normalisation layer: a local rule cannot tell which block they "
                    "belong to. Use a network of such layers, or freeze the module (requires_grad_(False))"
                )
            self._handles.append(module.register_forward_pre_hook(self._auxiliary_hook(Layer(name, module))))

    @property
    def layers_seen(self) -> int:
        """How many weight layers the forward pass since `start` has used with gradients enabled."""
        return len(self._seen)

    def start(self) -> None:
        """Begins a training forward pass."""
        self._clear()
        self._active = True

    def stop(self) -> None:
        """Ends it and forgets what was captured."""
        self._active = False
        self._clear()

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _clear(self) -> None:
        self._captures = []
        self._pending = []
        self._seen = set()
        self._last = None

    def _pre_hook(self, layer: Layer) -> Callable[[nn.Module, tuple[object, ...]], tuple[object, ...] | None]:
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> tuple[object, ...] | None:
            # A spiking network runs all but its last time step without gradients: those steps are not watched.
            if not self._active or not torch.is_grad_enabled():
                return None
            if not arguments or not isinstance(arguments[0], Tensor):
                raise TypeError(f"layer {layer.name!r} must be called with a tensor as its first positional argument")
            inputs = arguments[0]
            if self._on_input is not None:
                self._on_input(layer, inputs.detach())
            if not self._detach:
                self._seen.add(layer.name)
                return None
            if layer.name in self._seen:
                raise ValueError(
                    f"layer {layer.name!r} was used twice in one training forward pass: a local rule has one error for "
                    "each layer, so shared weights are not supported"
                )
            self._seen.add(layer.name)
            if inputs.requires_grad and self._last is not None and all(c.output is not inputs for c in self._captures):
                self._captures.append(_Capture(self._last, inputs, list(self._pending)))
            self._add_parameters(layer)
            self._last = layer
            return (inputs.detach(), *arguments[1:])

        return hook

    def _auxiliary_hook(self, layer: Layer) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> None:
            if self._active and torch.is_grad_enabled():
                self._add_parameters(layer)

        return hook

    def _add_parameters(self, layer: Layer) -> None:
        prefix = f"{layer.name}." if layer.name else ""
        self._pending += [(prefix + n, p) for n, p in layer.module.named_parameters(recurse=False) if p.requires_grad]

    def local_gradients(self, local_error: Callable[[Layer, Tensor], Tensor], scale: float) -> dict[str, Tensor]:
        """Gradients of every hidden block from its local error; frees the blocks' graphs.

        Args:
            local_error: (layer that begins the block, output of the block) to an error of the output's shape.
            scale: factor on every error.

        Returns:
            Parameter name to gradient, for the parameters of hidden blocks.

        Raises:
            ValueError: an error of another shape than its output, or not finite.
        """
        gradients: dict[str, Tensor] = {}
        for capture in self._captures:
            parameters = [(n, p) for n, p in capture.parameters if n not in gradients]
            if not parameters:
                continue
            error = local_error(capture.layer, capture.output.detach())
            if error.shape != capture.output.shape:
                raise ValueError(
                    f"the local error of block {capture.layer.name!r} has shape {tuple(error.shape)}, "
                    f"but the block's output has {tuple(capture.output.shape)}"
                )
            if not bool(torch.isfinite(error.sum())):
                raise ValueError(
                    f"the local error of block {capture.layer.name!r} is not finite; no weight was changed"
                )
            upstream = (error * scale if scale != 1.0 else error).to(capture.output.dtype)
            try:
                # No two blocks share a node on the way to their own parameters, so each graph can be freed at once.
                found = torch.autograd.grad(capture.output, [p for _, p in parameters], upstream, allow_unused=True)
            except RuntimeError as failure:
                raise ValueError(
                    f"block {capture.layer.name!r} cannot learn locally: the loss reaches it by a path around every later "
                    "weight layer (a skip connection past the head); end such a path in a weight layer"
                ) from failure
            gradients.update({n: g for (n, _), g in zip(parameters, found, strict=True) if g is not None})
        return gradients

"""Hooks on the weight layers of a network that cut the backward chain between them.

The input of every weight layer ends a block. It is detached, so that each block has a graph of its own, and kept,
so that the block can learn from a local error at that point. A parameter belongs to the first such point downstream
of it; parameters with none downstream belong to the head and learn from the loss. Nothing needs to be known about the
network beforehand: branches, residual sums and auxiliary parameters (normalisation, PReLU) are assigned to blocks by the
graph that the forward pass builds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from lit_meta.core._buffers import Recycled
from lit_meta.core._linear_block import simple_block
from lit_meta.core.errors import DivergedError
from lit_meta.core.layers import Layer, auxiliary_layers, check_unshared, compiled_parts, fingerprint, weight_layers
from lit_meta.core.local_steps import is_outside_rules
from lit_meta.core.trees import tensors
from lit_meta.utils.validation import all_finite


@dataclass
class _Capture:
    """A point where a block ends: its output and the parameters used so far."""

    layer: Layer
    output: Tensor
    parameters: list[tuple[str, nn.Parameter]]


class LayerWatch:
    """Forward pre-hooks on the weight layers of one network; inert except between `start` and `stop`.

    Args:
        network: the network to watch.
        detach: cut the backward chain at every weight layer and keep the blocks' outputs.
        on_input: called with each layer and its input in a training forward pass.

    Raises:
        ValueError: no weight layer, or (with ``detach``) parameters that cannot be assigned to one block: of a module of
            an unknown kind, or shared by two layers.
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
        self._blocks: dict[tuple[str, str], Layer] = {}
        self._gradients = Recycled()
        # Graphs are checked once per experience: a network may change between experiences.
        self._verify = True
        layers = weight_layers(network)
        self._hooks: list[tuple[nn.Module, Callable[..., object]]] = [(x.module, self._pre_hook(x)) for x in layers]
        self._hidden_by_compilation = compiled_parts(network, layers)
        if detach:
            auxiliary = list(auxiliary_layers(network))
            check_unshared([*layers, *auxiliary])
            self._hooks += [(x.module, self._auxiliary_hook(x)) for x in auxiliary]
            layers += auxiliary
        frozen = any(not p.requires_grad for x in layers for p in x.module.parameters(recurse=False))
        # Only a frozen layer can leave the loss without a parameter; other networks do not pay for the check.
        self._checked = network if detach and frozen else None
        self._layers = layers
        self._key = fingerprint(network)
        self.open()

    def open(self) -> None:
        """Registers the hooks, unless they are registered already.

        They are the same function objects every time: a compiled network calls those that it was traced with.
        """
        # Parameters may have been replaced since, for example by a layer that grows.
        self._own = {layer.name: _own_parameters(layer) for layer in self._layers}
        if not self._handles:
            self._handles = [module.register_forward_pre_hook(hook) for module, hook in self._hooks]
            if self._checked is not None:
                self._handles.append(self._checked.register_forward_hook(self._check_reached))
        self._verify = True

    def fits(self, network: nn.Module) -> bool:
        """Whether the network still has the layers and the trainable parameters that this watch was built for."""
        return self._key == fingerprint(network)

    def check_seen(self) -> None:
        """Checks that the forward pass since `start` went through the hooks.

        Raises:
            ValueError: it used no weight layer, or layers that were compiled before the hooks were registered skip them.
        """
        hidden = [name for name in self._hidden_by_compilation if name not in self._seen]
        if self._seen and not hidden:
            return
        subject = f"the weight layers {', '.join(map(repr, hidden))} were not" if hidden else "no weight layer was"
        raise ValueError(
            f"{subject} seen in the forward pass. A network that was compiled and used before the rule was attached hides its "
            "layers: attach the rule first and compile then, or pass the uncompiled network. Freeze layers "
            "(requires_grad_(False)) that are not used"
        )

    def start(self) -> None:
        """Begins a training forward pass."""
        self._clear()
        self._active = True

    def stop(self) -> None:
        """Ends the pass and discards the captured outputs."""
        self._active = False
        self._clear()

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._gradients.clear()

    def _clear(self) -> None:
        self._captures = []
        self._pending = []
        self._seen = set()
        self._last = None

    def _pre_hook(self, layer: Layer) -> Callable[[nn.Module, tuple[object, ...]], tuple[object, ...] | None]:
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> tuple[object, ...] | None:
            # A spiking network runs all but its last time step without gradients, or for its membranes' own graph only.
            if not self._active or not torch.is_grad_enabled() or is_outside_rules():
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
                self._captures.append(_Capture(self._block(layer), inputs, list(self._pending)))
            self._add_parameters(layer)
            self._last = layer
            return (inputs.detach(), *arguments[1:])

        return hook

    def _auxiliary_hook(self, layer: Layer) -> Callable[[nn.Module, tuple[object, ...]], None]:
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> None:
            if self._active and torch.is_grad_enabled():
                self._add_parameters(layer)
                # Normalisation of the raw input comes before any weight layer and is then a block of its own.
                self._last = self._last or layer

        return hook

    def _block(self, receiver: Layer) -> Layer:
        """The layer that begins the block which ends at another."""
        last = self._last
        assert last is not None
        if (block := self._blocks.get((last.name, receiver.name))) is None:
            block = self._blocks[last.name, receiver.name] = replace(last, receiver=receiver.module)
        return block

    def _check_reached(self, network: nn.Module, arguments: tuple[object, ...], outputs: object) -> None:
        """Checks that the loss will have a parameter to be differentiated by."""
        if not self._active or self._last is None or not torch.is_grad_enabled():
            return
        if not any(output.requires_grad for output in tensors(outputs)):
            raise ValueError(
                f"a local rule leaves the head alone to the loss, and no parameter from layer {self._last.name!r} on trains: "
                "unfreeze the head (requires_grad_(True))"
            )

    def _add_parameters(self, layer: Layer) -> None:
        self._pending += [pair for pair in self._own[layer.name] if pair[1].requires_grad]

    def local_gradients(self, local_error: Callable[[Layer, Tensor], Tensor], scale: float) -> dict[str, Tensor]:
        """Gradients of every hidden block from its local error; frees the blocks' graphs.

        Args:
            local_error: maps (layer that begins the block, output of the block) to an error of the output's shape.
            scale: factor on every error.

        Returns:
            Parameter name to gradient, for the parameters of hidden blocks.

        Raises:
            ValueError: an error of another shape than its output.
            DivergedError: an error that is not finite.
        """
        gradients: dict[str, Tensor] = {}
        if self._verify:
            self._check_graphs()
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
            if not all_finite(error):
                raise DivergedError(
                    f"the local error of block {capture.layer.name!r} is not finite; no weight was changed"
                )
            factor = scale
            if capture.output.dtype == torch.float16:
                error, factor = _fit_to_half(error, scale)
            elif scale != 1.0:
                error, factor = error * scale, 1.0
            upstream = error.to(capture.output.dtype)
            block_gradients = self._block_gradients(capture, parameters, upstream)
            for (name, _), gradient in zip(parameters, block_gradients, strict=True):
                if gradient is not None:
                    if gradient.dtype == torch.float16 or factor != 1.0:
                        _check_finite(gradient, capture.layer)
                    gradients[name] = gradient if factor == 1.0 else gradient * factor
        return gradients

    def _block_gradients(
        self, capture: _Capture, parameters: list[tuple[str, nn.Parameter]], upstream: Tensor
    ) -> list[Tensor | None]:
        layer = capture.layer.module
        try:
            block = simple_block(layer, capture.output)
            if block is None:
                # No two blocks share a node on the way to their own parameters, so each graph can be freed at once.
                tensors = [parameter for _, parameter in parameters]
                return list(torch.autograd.grad(capture.output, tensors, upstream, allow_unused=True))
        except RuntimeError as failure:
            raise ValueError(
                f"block {capture.layer.name!r} cannot learn locally: the loss reaches it by a path around every later "
                "weight layer (a skip connection past the head); end such a path in a weight layer"
            ) from failure
        gradients: list[Tensor | None] = []
        with torch.no_grad():
            error = block.error(upstream)
            for name, parameter in parameters:
                if parameter is layer.weight:
                    gradients.append(block.weight_gradient(error, self._gradients.empty(name, parameter)))
                else:
                    gradients.append(error.sum(0) if parameter is layer.bias else None)
        return gradients

    def _check_graphs(self) -> None:
        for capture in self._captures:
            assigned = {id(p) for _, p in capture.parameters}
            for leaf in _leaves(capture.output):
                if id(leaf) not in assigned and isinstance(leaf, nn.Parameter):
                    raise ValueError(
                        f"block {capture.layer.name!r} uses a parameter of shape {tuple(leaf.shape)} without calling the layer "
                        "it is in, so a local rule does not know which block it belongs to: call the layer, or freeze the "
                        "parameter"
                    )
        self._verify = False


def _own_parameters(layer: Layer) -> list[tuple[str, nn.Parameter]]:
    prefix = f"{layer.name}." if layer.name else ""
    own = list(layer.module.named_parameters(recurse=False))
    if parametrize.is_parametrized(layer.module):
        # The parameters that the weight is computed from belong to the layer too.
        own += [pair for pair in layer.module.named_parameters() if pair[0].startswith("parametrizations.")]
    return [(prefix + name, parameter) for name, parameter in own]


def _check_finite(gradient: Tensor, layer: Layer) -> None:
    if not all_finite(gradient):
        raise ValueError(
            f"the local gradient of block {layer.name!r} overflows half precision; no weight was changed. Scale its inputs "
            "down, or use bfloat16"
        )


def _fit_to_half(error: Tensor, scale: float) -> tuple[Tensor, float]:
    """An error scaled into the range of half precision, and the factor that its gradients then need.

    As loss scaling does for a loss: an error divided by a batch size of 256 underflows in half precision. The factor is
    ``scale`` times a power of two, so that no digit is lost.
    """
    largest = float(error.abs().amax())
    if not 0.0 < largest < math.inf:
        return error, scale
    exponent = math.frexp(largest)[1]
    return error.float() * 2.0**-exponent, scale * 2.0**exponent


def _leaves(output: Tensor) -> Iterator[Tensor]:
    """The tensors at the ends of the graph of ``output``."""
    stack, visited = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        stack += [parent for parent, _ in node.next_functions]

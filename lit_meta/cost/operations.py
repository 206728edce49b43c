"""Counts what the weight layers and neurons of a network compute while it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lit_meta.cost.totals import Cost
from lit_meta.functional.cost import (
    convolution_macs,
    convolution_synaptic_operations,
    linear_macs,
    linear_synaptic_operations,
    nonzero_count,
)
from lit_meta.networks.gates import InputGate
from lit_meta.networks.spiking import SpikingNetwork
from lit_meta.networks.spiking_patches import SpikingPatchNet

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_COUNTED = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def layer_macs(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Multiply-accumulates of one call of a weight layer.

    Args:
        layer: a Linear layer or a convolution, transposed or not.
        inputs: its input.
        output: its output.

    Raises:
        TypeError: another layer.

    Example:
        >>> layer, x = nn.Conv2d(4, 8, 3, stride=2, groups=2), torch.zeros(5, 4, 9, 9)
        >>> layer_macs(layer, x, layer(x)) == 5 * 2 * 9 * 8 * 16
        True
    """
    if isinstance(layer, nn.Linear):
        return linear_macs(inputs.numel() // max(1, layer.in_features), layer.in_features, layer.out_features)
    if not isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        raise TypeError(f"expected a Linear layer or a convolution, got {type(layer).__name__}")
    dimensions = len(layer.kernel_size)
    samples = inputs.shape[0] if inputs.dim() == dimensions + 2 else 1
    positions = (inputs if isinstance(layer, _TRANSPOSED) else output).shape[-dimensions:]
    return convolution_macs(
        samples, layer.in_channels, layer.out_channels, layer.kernel_size, positions, groups=layer.groups
    )


def layer_synaptic_operations(layer: nn.Module, spikes: Tensor) -> Tensor:
    """Nonzero inputs of one call of a weight layer times their fan-out.

    Args:
        layer: a Linear layer, or a convolution that is not transposed and whose padding is given as numbers.
        spikes: its input.

    Returns:
        A scalar, int64.

    Raises:
        TypeError: another layer.

    Example:
        >>> layer_synaptic_operations(nn.Linear(3, 10), torch.tensor([[1.0, 0.0, 1.0]]))
        tensor(20)
    """
    if isinstance(layer, nn.Linear):
        return linear_synaptic_operations(spikes, layer.out_features)
    if not isinstance(layer, _CONVOLUTIONS) or isinstance(layer.padding, str):
        raise TypeError(f"cannot determine the fan-out of the inputs of {layer}")
    return convolution_synaptic_operations(
        spikes,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


@dataclass(frozen=True)
class _Call:
    """A call of a learning weight layer: its input and, if a gate follows, the number of open units (of each sample).

    The input is read after the backward pass, once it is known which layer came last and learned from the loss. The
    weight's gradient needs the input until then, so it is still there and unchanged.
    """

    layer: nn.Module
    macs: int
    inputs: Tensor
    operations: Tensor | None
    opened: Tensor | None

    def local_operations(self) -> Tensor:
        """Synaptic operations into units that the gate leaves open."""
        if self.opened is not None and isinstance(self.layer, nn.Linear):
            counts = nonzero_count(self.inputs, dim=-1)
            if self.opened.dim() == 0:  # The same for all samples.
                return (counts * self.opened).sum()
            # One for each sample: its positions share it, and so do its time steps, which a call takes one after another.
            by_step = counts.unflatten(0, (-1, len(self.opened)))
            return (by_step * self.opened.view(-1, *(1,) * (counts.dim() - 1))).sum()
        return layer_synaptic_operations(self.layer, self.inputs) if self.operations is None else self.operations


class OperationCounter:
    """Counts what the weight layers of a network compute between `start` and `stop`.

    Args:
        network: whose layers are observed; Linear layers and convolutions have multiply-accumulates, embeddings none.
        local: whether hidden layers learn from local errors, so that only the last weight layer learns from the loss.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> counter = OperationCounter(network, local=False)
        >>> counter.start()
        >>> network(torch.ones(5, 4)).sum().backward()
        >>> counter.after_backward(); counter.stop(); counter.close()
        >>> cost = counter.cost()
        >>> cost.forward_macs, cost.backward_macs  # weights of both layers, and the input gradient of the second
        (90, 120)
    """

    def __init__(self, network: nn.Module, *, local: bool) -> None:
        self._local = local
        self._active = False
        self._calls: list[_Call] = []
        self._open: dict[int, Tensor] = {}
        self._sparse: dict[str, list[Tensor]] = {}
        self._whole = dict.fromkeys(("forward_macs", "backward_macs", "local_macs", "analog_macs", "lif_updates"), 0)
        # By identity of the layer: the time steps of its spiking network, and whether its input is spikes.
        self._spiking: dict[int, tuple[int, bool]] = {}
        # Networks that pass averages of spikes to a layer count the spikes themselves: nonzero averages are not spikes.
        self._averaging: dict[SpikingPatchNet, bool] = {}
        self._handles: list[RemovableHandle] = []
        for module in network.modules():
            if isinstance(module, SpikingNetwork):
                for i, layer in enumerate(module.layers):
                    self._spiking[id(layer)] = (module.steps, i > 0 or module.encoding != "analog")
            elif isinstance(module, SpikingPatchNet):
                self._averaging[module] = module.record_spikes
                self._spiking |= {id(layer): (module.steps, False) for layer in module.layers}
                self._spiking[id(module.head)] = (0, True)
                if module.expansion is not None:
                    self._spiking[id(module.expansion)] = (module.steps, True)
                self._handles.append(module.register_forward_hook(self._spike_hook))
        averaged = {id(layer) for net in self._averaging for layer in (net.expansion, net.head)}
        for module in network.modules():
            if isinstance(module, _COUNTED):
                hook = self._hook(module, counts_spikes=id(module) not in averaged)
                self._handles.append(module.register_forward_hook(hook))
            gate, layers = getattr(module, "gate", None), getattr(module, "layers", None)
            if local and isinstance(gate, InputGate) and isinstance(layers, nn.ModuleList):
                self._handles.append(gate.register_forward_hook(self._gate_hook(list(layers))))

    def start(self) -> None:
        """Starts counting forward passes."""
        self._active = True
        self._calls.clear()
        for network in self._averaging:
            network.record_spikes = True

    def stop(self) -> None:
        """Stops counting them."""
        self._active = False
        self._calls.clear()
        self._open.clear()
        for network, recorded in self._averaging.items():
            network.record_spikes = recorded

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def after_backward(self) -> None:
        """Call after the backward pass of a batch: counts what local rules computed in the layers that took part."""
        if not self._local or not self._calls:
            return
        head = self._calls[-1].layer
        for call in self._calls:
            if call.layer is head:
                self._whole["backward_macs"] += call.macs
                continue
            self._whole["local_macs"] += call.macs
            operations = call.local_operations()
            self._add("local_operations", operations)
            if call.operations is not None:
                self._add("local_accumulates", operations)
        self._calls.clear()

    def counts(self) -> dict[str, int]:
        """The counts since the last call of `cost`, by quantity."""
        sums = {name: int(torch.stack([v.sum().cpu() for v in values]).sum()) for name, values in self._sparse.items()}
        return {**self._whole, **sums}

    def add(self, counts: Mapping[str, int]) -> None:
        """Counts on from what `counts` gave."""
        for name, count in counts.items():
            if name in self._whole:
                self._whole[name] += count
            else:
                self._add(name, torch.tensor(count))

    def cost(self) -> Cost:
        """The counts since the last call of this method."""
        cost = Cost(**self.counts())
        self._whole = dict.fromkeys(self._whole, 0)
        self._sparse = {}
        return cost

    def _add(self, name: str, count: Tensor) -> None:
        # Kept as tensors: reading one would make the host wait for the device at every layer.
        total = self._sparse.get(name)
        self._sparse[name] = [count] if total is None else [total[0] + count]

    def _gate_hook(self, layers: list[nn.Module]) -> Callable[[nn.Module, Any, list[Tensor | None]], None]:
        def hook(module: nn.Module, arguments: Any, masks: list[Tensor | None]) -> None:
            if self._active:
                for layer, mask in zip(layers, masks, strict=False):
                    if mask is not None:
                        self._open[id(layer)] = (mask > 0.5).sum(dim=-1)

        return hook

    def _spike_hook(self, network: SpikingPatchNet, arguments: Any, output: Tensor) -> None:
        if self._active:
            for name, spikes in network.spike_counts.items():
                self._add("synaptic_operations", spikes.sum().long() * getattr(network, name).out_features)

    def _hook(self, layer: nn.Module, *, counts_spikes: bool) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        steps, spikes = self._spiking.get(id(layer), (0, False))
        trainable = layer.weight
        known: dict[tuple[torch.Size, torch.Size], int] = {}

        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if not self._active:
                return
            inputs: Tensor = arguments[0]
            shapes = inputs.shape, output.shape
            macs = known.get(shapes)
            if macs is None:
                macs = known[shapes] = layer_macs(layer, inputs, output)
            self._whole["forward_macs"] += macs
            if not spikes:
                self._whole["analog_macs"] += macs
            if steps:
                # Spike-driven layers run once per step and sample, an analog first layer once for all steps.
                self._whole["lif_updates"] += output.numel() * (1 if spikes else steps)
            learns = torch.is_grad_enabled() and output.requires_grad and bool(trainable.requires_grad)
            operations = layer_synaptic_operations(layer, inputs.detach()) if spikes and counts_spikes else None
            if operations is not None:
                self._add("synaptic_operations", operations)
            if not torch.is_grad_enabled() or not output.requires_grad:
                return
            if self._local:
                if learns:
                    self._calls.append(_Call(layer, macs, inputs.detach(), operations, self._open.get(id(layer))))
                return
            products = int(bool(trainable.requires_grad)) + int(inputs.requires_grad)

            def backward(gradient: Tensor) -> None:
                self._whole["backward_macs"] += products * macs

            output.register_hook(backward)

        return hook

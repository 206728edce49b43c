"""What the weight layers of a network see: their inputs as rows of a matrix, and their weights as another.

A Linear layer's input is a row as it is; a convolution's are the patches under its kernel. A trainable bias is the
weight of one more input that is always 1, and stands first. With rows x and the matrix W of these, the layer's output
is W x at every position, so that what keeps W x as it was keeps the layer's output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.layers import weight_layers
from lit_meta.core.rule import Synapses
from lit_meta.utils.modes import evaluating


@dataclass(frozen=True)
class Receptive:
    """A trainable weight layer.

    Attributes:
        name: of the module, relative to the network.
        module: a Linear or a convolution.
        weight: name of its weight among the network's parameters.
        bias: name of its trainable bias; None where there is none.
    """

    name: str
    module: nn.Module
    weight: str
    bias: str | None

    @property
    def width(self) -> int:
        """Inputs that one output sees, the bias among them."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight[0].numel() + (self.bias is not None)

    def rows(self, inputs: Tensor) -> Tensor:
        """Inputs of the layer, of the layout that it takes, as (rows, width)."""
        seen = _patches(self.module, inputs)
        if self.bias is None:
            return seen
        return torch.cat([seen.new_ones(seen.shape[0], 1), seen], 1)


def receptive_layers(synapses: Synapses, rule: str) -> list[Receptive]:
    """The layers of a network in which every trainable parameter is a weight or a bias of a Linear or convolution.

    Args:
        synapses: the network and its trainable parameters.
        rule: name of the rule that asks, for messages.

    Raises:
        ValueError: a trainable parameter elsewhere, a weight that two layers share, or a convolution whose patches
            cannot be had.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 2))
        >>> names, parameters = zip(*network.named_parameters())
        >>> receptive_layers(Synapses(network, names, list(parameters)), "OWM")[0].width
        4
    """
    name_of = {id(p): n for n, p in zip(synapses.names, synapses.parameters, strict=True)}
    found: list[Receptive] = []
    held: set[str] = set()
    for layer in weight_layers(synapses.network):
        weight, bias = (name_of.get(id(getattr(layer.module, part, None))) for part in ("weight", "bias"))
        if weight is None:
            if bias is not None:
                raise ValueError(
                    f"{rule} cannot protect layer {layer.name!r}: its weight is frozen but its bias is not"
                )
            continue
        if weight in held or bias in held:
            raise ValueError(
                f"{rule} does not support shared weights: layer {layer.name!r} uses {weight!r} of another one"
            )
        _check_kind(layer.module, layer.name, rule)
        held |= {weight} if bias is None else {weight, bias}
        found.append(Receptive(layer.name, layer.module, weight, bias))
    outside = [name for name in synapses.names if name not in held]
    if outside:
        raise ValueError(
            f"{rule} protects what Linear and convolution layers compute, but {outside[0]!r} is a trainable parameter of "
            f"another kind ({len(outside)} such): freeze it with requires_grad_(False), or use a network without it"
        )
    return found


@contextmanager
def recording(network: nn.Module, layers: list[Receptive]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects what each layer receives, as rows, while forward passes are made in evaluation mode.

    Yields:
        layer name to a list of (rows, width), one for each time the layer is used; to be cleared by the reader.
    """
    seen: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}

    def hook_of(layer: Receptive) -> object:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[layer.name].append(layer.rows(arguments[0]))

        return hook

    handles = [layer.module.register_forward_pre_hook(hook_of(layer)) for layer in layers]  # type: ignore[arg-type]
    try:
        with evaluating(network):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _check_kind(module: nn.Module, name: str, rule: str) -> None:
    if isinstance(module, nn.Linear):
        return
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        raise ValueError(f"{rule} works on Linear, Conv1d and Conv2d layers; {name!r} is a {type(module).__name__}")
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(
            f"{rule} takes patches of convolutions with groups=1, padding_mode='zeros' and padding in numbers; {name!r} has "
            f"groups={module.groups}, padding_mode={module.padding_mode!r}, padding={module.padding!r}"
        )


def _patches(module: nn.Module, inputs: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    if isinstance(module, nn.Conv1d):
        kernel, dilation, padding, stride = (
            (1, int(size[0])) if zero else (0, int(size[0]))  # type: ignore[index]
            for size, zero in (
                (module.kernel_size, True),
                (module.dilation, True),
                (module.padding, False),
                (module.stride, True),
            )
        )
        inputs = inputs.unsqueeze(-2)
        patches = F.unfold(inputs, kernel, dilation, padding, stride)
    else:
        assert isinstance(module, nn.Conv2d)
        assert not isinstance(module.padding, str)
        patches = F.unfold(inputs, module.kernel_size, module.dilation, module.padding, module.stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])

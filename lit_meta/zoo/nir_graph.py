"""Spiking networks in the neuromorphic intermediate representation (NIR)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from lit_meta.networks.spiking import SpikingNetwork
from lit_meta.networks.spiking_patches import SpikingPatchNet

# The length of a step in seconds, as snnTorch and Norse read it. Nothing depends on it: time constants are in steps.
_STEP = 1e-4


def nir_graph(network: nn.Module) -> Any:
    r"""A spiking network as a NIR graph: in go the spikes (or currents) of every step, out come those of the last layer.

    Our neurons, ``V_t = d · V_{t−1} (1 − S_{t−1}) + I_t``, are NIR's leaky integrate-and-fire neurons with
    :math:`τ = Δt / (1 - d)`, resistance :math:`1 / (1 - d)` and a reset to 0, stepped by Euler's method. Shapes are without a
    batch, as NIR has them; snnTorch's reader takes the first dimension of a flattening for one of the batch, so a network with
    convolutions runs there one sample at a time.

    Args:
        network: a `SpikingNetwork` of Linear layers and convolutions with average pooling (`LIFMLP`, `LIFConvNet`), without
            a gate, with ``current="identity"``.

    Raises:
        ValueError: it has parts that NIR does not know.

    Source:
        Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 15, 8122, 2024.
    """
    import nir
    import numpy as np

    _check(network)
    assert isinstance(network, SpikingNetwork)
    shape: tuple[int, ...] = network.input_shape
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(shape)})}
    for number, layer in enumerate(network.layers):
        if number and isinstance(network.layers[number - 1], nn.Conv2d):
            nodes[f"pooling_{number}"], shape = _pooling(network.get_submodule("pooling"), shape)
        if isinstance(layer, nn.Conv2d):
            nodes[f"weight_{number}"], shape = _convolution(layer, shape)
        else:
            if len(shape) > 1:
                nodes["flatten"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
            assert isinstance(layer, nn.Linear)
            nodes[f"weight_{number}"], shape = _linear(layer), (layer.out_features,)
        ones = np.ones(shape, dtype=np.float64)
        leak = 1.0 - network.decay
        nodes[f"neurons_{number}"] = nir.LIF(
            tau=ones * _STEP / leak,
            r=ones / leak,
            v_leak=0 * ones,
            v_threshold=network.threshold * ones,
            v_reset=0 * ones,
        )
    nodes["output"] = nir.Output({"output": np.array(shape)})
    order = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(order)))


def _linear(layer: nn.Linear) -> Any:
    import nir

    weight = layer.weight.detach().numpy()
    return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, layer.bias.detach().numpy())


def _convolution(layer: nn.Conv2d, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The node of a convolution, and the shape of its maps; NIR's have a bias, here perhaps of 0."""
    import nir
    import numpy as np

    maps = layer(torch.zeros(1, *shape)).shape[1:]
    bias = np.zeros(layer.out_channels, np.float32) if layer.bias is None else layer.bias.detach().numpy()
    node = nir.Conv2d(
        input_shape=shape[1:],
        weight=layer.weight.detach().numpy(),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=bias,
    )
    return node, tuple(maps)


def _pooling(pooling: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    import nir
    import numpy as np

    sizes = (np.array([size, size]) for size in (pooling.kernel_size, pooling.stride, pooling.padding))
    return nir.AvgPool2d(*sizes), tuple(pooling(torch.zeros(1, *shape)).shape[1:])


def _check(network: nn.Module) -> None:
    name = type(network).__name__
    if isinstance(network, SpikingPatchNet):
        raise ValueError(
            f"NIR has no division of patches by their contrast, which the first layers of a {name} do, so it has no such form"
        )
    if not isinstance(network, SpikingNetwork):
        raise ValueError(
            f"NIR is a form of spiking networks of leaky neurons, such as LIFMLP and LIFConvNet; this is {name}"
        )
    missing = []
    if isinstance(getattr(network, "pooling", None), nn.MaxPool2d):
        missing.append("max pooling (use pooling='average')")
    if not isinstance(network.current, nn.Identity):
        missing.append("a logistic function of the current (use current='identity')")
    if network.gate.kind != "none":
        missing.append("a gate")
    if network.decay >= 1:
        missing.append("neurons without a leak")
    if missing:
        raise ValueError(f"{name} has what NIR does not know: {', '.join(missing)}")

"""Spiking networks in the neuromorphic intermediate representation (NIR)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from lit_meta.networks.spiking import SpikingNetwork

# The length of a step in seconds, as snnTorch and Norse read it. Nothing depends on it: time constants are in steps.
_STEP = 1e-4


def nir_graph(network: nn.Module) -> Any:
    r"""A spiking network as a NIR graph: in go the spikes (or currents) of every step, out come those of the last layer.

    Our neurons, ``V_t = d · V_{t−1} (1 − S_{t−1}) + I_t``, are NIR's leaky integrate-and-fire neurons with
    :math:`τ = Δt / (1 - d)`, resistance :math:`1 / (1 - d)` and a reset to 0, stepped by Euler's method.

    Args:
        network: a `SpikingNetwork` of Linear layers, without a gate, with ``current="identity"``.

    Raises:
        ValueError: it has parts that NIR does not know.

    Source:
        Pedersen et al., "Neuromorphic intermediate representation", Nature Communications 15, 8122, 2024.
    """
    import nir
    import numpy as np

    _check(network)
    assert isinstance(network, SpikingNetwork)
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(network.input_shape)})}
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, nn.Linear)
        weight = layer.weight.detach().numpy()
        if layer.bias is None:
            nodes[f"weight_{number}"] = nir.Linear(weight=weight)
        else:
            nodes[f"weight_{number}"] = nir.Affine(weight=weight, bias=layer.bias.detach().numpy())
        ones = np.ones(layer.out_features, dtype=np.float64)
        leak = 1.0 - network.decay
        nodes[f"neurons_{number}"] = nir.LIF(
            tau=ones * _STEP / leak,
            r=ones / leak,
            v_leak=0 * ones,
            v_threshold=network.threshold * ones,
            v_reset=0 * ones,
        )
    nodes["output"] = nir.Output({"output": np.array([network.layers[-1].out_features])})
    order = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(order)))


def _check(network: nn.Module) -> None:
    name = type(network).__name__
    if not isinstance(network, SpikingNetwork):
        raise ValueError(f"NIR is a form of spiking networks of leaky neurons, such as LIFMLP; this is {name}")
    missing = []
    if any(not isinstance(layer, nn.Linear) for layer in network.layers):
        missing.append("convolutions followed by pooling of spikes")
    if not isinstance(network.current, nn.Identity):
        missing.append("a logistic function of the current (use current='identity')")
    if network.gate.kind != "none":
        missing.append("a gate")
    if network.decay >= 1:
        missing.append("neurons without a leak")
    if missing:
        raise ValueError(f"{name} has what NIR does not know: {', '.join(missing)}")

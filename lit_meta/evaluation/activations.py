"""Hidden activations of a network, and the spikes of its neurons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.core.layers import weight_layers
from lit_meta.evaluation.accuracy import evaluating
from lit_meta.functional.spiking import LIFState, lif_step
from lit_meta.networks.spiking import SpikingNetwork


def hidden_activity(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Hidden activations: the input of each weight layer after the first.

    The network runs in evaluation mode. For a layer that runs several times in one pass (over the time steps of a spiking
    network), the activation is the mean over them, a firing rate.

    Args:
        network: maps (batch, ...) to outputs.
        inputs: (batch, ...).

    Returns:
        By name of the receiving layer, (batch, units), as `lit_meta.functional.plasticity.dormant_fraction` and
        `lit_meta.functional.plasticity.effective_rank` expect. Layers that did not run are left out.

    Raises:
        ValueError: a layer whose input does not have the samples of the batch as rows.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> {name: activity.shape for name, activity in hidden_activity(network, torch.rand(4, 3)).items()}
        {'2': torch.Size([4, 5])}
    """
    sums: dict[str, Tensor] = {}
    passes: dict[str, int] = {}
    for name, received in _received(network, inputs):
        if len(received) % len(inputs):
            raise ValueError(
                f"layer {name!r} received {len(received)} rows for a batch of {len(inputs)}; expected its samples as rows"
            )
        steps = received.flatten(1).unflatten(0, (-1, len(inputs)))
        sums[name] = sums.get(name, torch.zeros(())) + steps.sum(0)
        passes[name] = passes.get(name, 0) + len(steps)
    first = next(iter(sums), None)
    return {name: total / passes[name] for name, total in sums.items() if name != first}


def spike_raster(network: SpikingNetwork, sample: Tensor) -> dict[str, Tensor]:
    """The spikes of every neuron while a sample is presented.

    Args:
        network: in any mode; it runs in evaluation mode, so that the input is encoded as in a test.
        sample: of the network's input shape, without a batch dimension.

    Returns:
        ``"input"`` (if the input is encoded as spikes), ``"hidden 1"`` ... and ``"output"``, each (steps, neurons) of 0
        and 1. Hidden spikes are those that the next layer receives: after the gate, and after pooling, where a value
        above 0 counts as a spike.

    Raises:
        TypeError: not a spiking network of this package.

    Example:
        >>> from lit_meta.networks import LIFMLP
        >>> raster = spike_raster(LIFMLP(6, [5], 3, steps=4, seed=0), torch.rand(6))
        >>> {name: tuple(spikes.shape) for name, spikes in raster.items()}
        {'input': (4, 6), 'hidden 1': (4, 5), 'output': (4, 3)}
    """
    if not isinstance(network, SpikingNetwork):
        raise TypeError(f"a raster needs a spiking network (lif-mlp, lif-convnet), got {type(network).__name__}")
    currents: list[Tensor] = []
    last = network.layers[-1].register_forward_hook(lambda module, _, output: currents.append(output.detach()))
    names = {f"layers.{i}": "input" if i == 0 else f"hidden {i}" for i in range(len(network.layers))}
    by_layer: dict[str, list[Tensor]] = {}
    try:
        for name, received in _received(network, sample[None]):
            by_layer.setdefault(names[name], []).append((received.flatten(1) != 0).float())
    finally:
        last.remove()
    if network.encoding == "analog":
        del by_layer["input"]
    raster = {name: torch.cat(parts) for name, parts in by_layer.items()}
    # No layer receives the readout's spikes: they follow from its currents by the same equation.
    current = network.current(torch.cat(currents))
    if len(current) == 1:  # a readout of analog input runs once for all steps
        current = current.expand(network.steps, -1)
    fired: list[Tensor] = []
    state: LIFState | None = None
    for now in current.split(1):
        spikes, state = lif_step(now, state, decay=network.decay, threshold=network.threshold)
        fired.append(spikes)
    raster["output"] = torch.cat(fired).cpu()
    return raster


def _received(network: nn.Module, inputs: Tensor) -> list[tuple[str, Tensor]]:
    """Every input of every weight layer in one pass, in order of execution."""
    seen: list[tuple[str, Tensor]] = []
    handles = [
        layer.module.register_forward_pre_hook(
            lambda module, arguments, name=layer.name: seen.append((name, arguments[0].detach()))
        )
        for layer in weight_layers(network)
    ]
    device = next((p.device for p in network.parameters()), inputs.device)
    try:
        with evaluating(network):
            network(inputs.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return [(name, received.cpu()) for name, received in seen]

"""What the hidden units of a network answer, and when its neurons fire."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.core.layers import weight_layers
from lit_meta.evaluation.accuracy import evaluating
from lit_meta.functional.spiking import LIFState, lif_step
from lit_meta.networks.spiking import SpikingNetwork


def hidden_activity(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What each weight layer after the first receives: the outputs of the hidden units before it.

    The network is in evaluation mode meanwhile. A layer that runs several times in one pass (a spiking network's, over its
    time steps) gives the mean over them, a firing rate.

    Args:
        network: maps (batch, ...) to outputs.
        inputs: (batch, ...).

    Returns:
        By name of the receiving layer, (batch, units): what `lit_meta.functional.plasticity.dormant_fraction` and
        `lit_meta.functional.plasticity.effective_rank` take. Layers that did not run are left out.

    Raises:
        ValueError: a layer that receives something which is not divided into the samples of the batch.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> {name: found.shape for name, found in hidden_activity(network, torch.rand(4, 3)).items()}
        {'2': torch.Size([4, 5])}
    """
    sums: dict[str, Tensor] = {}
    passes: dict[str, int] = {}
    for name, received in _received(network, inputs):
        if len(received) % len(inputs):
            raise ValueError(
                f"layer {name!r} received {len(received)} rows for a batch of {len(inputs)}: they are not its samples"
            )
        steps = received.flatten(1).unflatten(0, (-1, len(inputs)))
        sums[name] = sums.get(name, torch.zeros(())) + steps.sum(0)
        passes[name] = passes.get(name, 0) + len(steps)
    first = next(iter(sums), None)
    return {name: total / passes[name] for name, total in sums.items() if name != first}


def spike_raster(network: SpikingNetwork, sample: Tensor) -> dict[str, Tensor]:
    """When every neuron fires while one sample is shown.

    Args:
        network: in any mode; evaluation mode is used, so that the input's spikes are those of a test.
        sample: of the network's input shape, without a batch dimension.

    Returns:
        ``"input"`` (where the input is turned into spikes), ``"hidden 1"`` ... and ``"output"``, each (steps, neurons) of
        0 and 1. Hidden spikes are those that the next layer receives: after the gate, and after pooling, where a value
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
        raise TypeError(f"a raster is of a spiking network (lif-mlp, lif-convnet), got {type(network).__name__}")
    currents: list[Tensor] = []
    last = network.layers[-1].register_forward_hook(lambda module, _, output: currents.append(output.detach()))
    names = {f"layers.{i}": "input" if i == 0 else f"hidden {i}" for i in range(len(network.layers))}
    found: dict[str, list[Tensor]] = {}
    try:
        for name, received in _received(network, sample[None]):
            found.setdefault(names[name], []).append((received.flatten(1) != 0).float())
    finally:
        last.remove()
    if network.encoding == "analog":
        del found["input"]
    raster = {name: torch.cat(parts) for name, parts in found.items()}
    # The readout's spikes are no layer's input: they follow from its currents by the same equation.
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
    """Every input of every weight layer in one pass, in the order in which they ran."""
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

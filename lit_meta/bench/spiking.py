"""Learning from the last time step against backpropagation through time, on the same spiking network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lit_meta.bench._benchmark import Benchmark, Work
from lit_meta.bench._work import batch, plain_step, session_step, squared_error
from lit_meta.networks import build_network
from lit_meta.rules import NACA

_INPUTS, _WIDTH, _CLASSES, _BATCH, _STEPS = 784, 1000, 10, 256, 20


def _network(learning: Literal["last_step", "bptt"], steps: int = _STEPS) -> nn.Module:
    arguments = {"inputs": _INPUTS, "hidden": [_WIDTH], "classes": _CLASSES, "steps": steps, "seed": 0}
    return build_network("lif-mlp", learning=learning, **arguments)


def naca_step() -> Work:
    """One NACA step of a spiking network, T = 20."""
    return session_step(_network("last_step"), NACA(), *batch(_BATCH, _INPUTS, _CLASSES))


def through_time() -> Work:
    """The same step by backpropagation through time."""
    return plain_step(_network("bptt"), *batch(_BATCH, _INPUTS, _CLASSES))


def kept_for_learning(learning: Literal["last_step", "bptt"], steps: int = _STEPS) -> Work:
    """Bytes that a forward pass keeps for its backward pass, each storage once, without the parameters."""
    network = _network(learning, steps)
    x, y = batch(_BATCH, _INPUTS, _CLASSES)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def measure() -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = squared_error(network(x), y)
        del loss
        return sum(kept.values())

    return measure


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "spiking/step",
        f"NACA step, LIF network, T = {_STEPS}",
        "backpropagation through time",
        naca_step,
        through_time,
        0.42,
    ),
    Benchmark(
        "spiking/memory",
        f"kept for learning from the last step, T = {_STEPS}",
        "kept for backpropagation through time",
        lambda: kept_for_learning("last_step"),
        lambda: kept_for_learning("bptt"),
        0.2,
        "bytes",
    ),
    Benchmark(
        "spiking/memory-of-time",
        "kept for learning from the last step, T = 200",
        f"the same, T = {_STEPS}",
        lambda: kept_for_learning("last_step", 200),
        lambda: kept_for_learning("last_step"),
        1.1,
        "bytes",
    ),
)

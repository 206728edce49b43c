"""Time and memory of NACA on a spiking network against backpropagation through time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import batch, begun, plain_step, quiet, session_step, sgd, squared_error
from lit_meta.cost.memory import SavedTensors
from lit_meta.networks import build_network
from lit_meta.networks.spiking_options import Learning
from lit_meta.rules import NACA

_BATCH = 64


def _network(learning: Learning, steps: int, hidden: Sequence[int] = (500,)) -> nn.Module:
    return build_network("lif-mlp", inputs=784, hidden=hidden, classes=10, steps=steps, learning=learning, seed=0)


def naca_step(steps: int = 20, hidden: Sequence[int] = (500,), samples: int = _BATCH) -> Work:
    """One NACA step of a spiking network."""
    return session_step(begun(_network("last_step", steps, hidden), NACA()), *batch(samples, 784, 10))


def bptt_step(steps: int = 20, hidden: Sequence[int] = (500,), samples: int = _BATCH) -> Work:
    """The same step by backpropagation through time."""
    return plain_step(_network("bptt", steps, hidden), *batch(samples, 784, 10))


def snntorch_step(steps: int = 20, width: int = 1000, samples: int = _BATCH) -> Work:
    """A training step of an snnTorch network of the same size: rate-coded input, leaky neurons, all steps in the graph."""
    import snntorch

    first, second = nn.Linear(784, width, bias=False), nn.Linear(width, 10, bias=False)
    neurons = [snntorch.Leaky(beta=0.2, threshold=0.5) for _ in range(2)]
    x, y = batch(samples, 784, 10)
    optimizer = sgd(nn.ModuleList([first, second]))

    def step() -> None:
        optimizer.zero_grad()
        hidden, output = (neuron.reset_mem() for neuron in neurons)
        total = torch.zeros(samples, 10)
        for _ in range(steps):
            spikes, hidden = neurons[0](first(torch.bernoulli(x)), hidden)
            spikes, output = neurons[1](second(spikes), output)
            total = total + spikes
        squared_error(total / steps, y).backward()
        optimizer.step()

    return step


def spikingjelly_step(steps: int = 20, width: int = 1000, samples: int = _BATCH) -> Work:
    """A training step of a SpikingJelly network of the same size and neurons, in its faster multi-step mode."""
    with quiet():
        from spikingjelly.activation_based import functional, layer

    network = nn.Sequential(
        layer.Linear(784, width, bias=False),
        spikingjelly_neuron(),
        layer.Linear(width, 10, bias=False),
        spikingjelly_neuron(),
    )
    functional.set_step_mode(network, "m")
    x, y = batch(samples, 784, 10)
    optimizer = sgd(network)

    def step() -> None:
        optimizer.zero_grad()
        functional.reset_net(network)
        squared_error(network(torch.bernoulli(x.expand(steps, -1, -1))).mean(0), y).backward()
        optimizer.step()

    return step


def spikingjelly_neuron() -> nn.Module:
    """The leaky neuron of `lif_step`: 0.2 of the potential is kept over a step, and a spike above 0.5 resets it to 0."""
    with quiet():
        from spikingjelly.activation_based import neuron

    return neuron.LIFNode(tau=1.25, decay_input=False, v_threshold=0.5, v_reset=0.0, step_mode="m")


def naca_memory(steps: int = 20) -> Work:
    """Bytes that autograd keeps for NACA's step."""
    network = _network("last_step", steps)
    session, (x, y) = begun(network, NACA()), batch(_BATCH, 784, 10)

    def work() -> int:
        session.before_forward(x, y)
        with SavedTensors(network) as saved:
            network(x)
        session.abandon_step()
        return saved.bytes

    return work


def bptt_memory(steps: int = 20) -> Work:
    """Bytes that autograd keeps for backpropagation through time."""
    network, (x, _) = _network("bptt", steps), batch(_BATCH, 784, 10)

    def work() -> int:
        with SavedTensors(network) as saved:
            network(x)
        return saved.bytes

    return work


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    # With one hidden layer, backpropagation through time has no large input gradient that NACA could save: NACA computes
    # T + 1 of its 2T large products, a ratio of 0.53 at T = 20.
    Benchmark(
        "snn/1-hidden",
        "NACA step of a spiking network, 784-1000-10, T = 20, batch 256",
        "BPTT",
        lambda: naca_step(hidden=(1000,), samples=256),
        lambda: bptt_step(hidden=(1000,), samples=256),
        0.42,
    ),
    Benchmark(
        "snn/3-hidden",
        "NACA step of a spiking network, 3 hidden of 1000, T = 20, batch 64",
        "BPTT",
        lambda: naca_step(hidden=(1000,) * 3),
        lambda: bptt_step(hidden=(1000,) * 3),
        0.42,
    ),
    Benchmark(
        "snn/snntorch",
        "NACA step of a spiking network, 784-1000-10, T = 20, batch 256",
        "snnTorch, backpropagation through time",
        lambda: naca_step(hidden=(1000,), samples=256),
        lambda: snntorch_step(samples=256),
        requires=("snntorch",),
    ),
    Benchmark(
        "snn/spikingjelly",
        "NACA step of a spiking network, 784-1000-10, T = 20, batch 256",
        "SpikingJelly, backpropagation through time",
        lambda: naca_step(hidden=(1000,), samples=256),
        lambda: spikingjelly_step(samples=256),
        requires=("spikingjelly",),
    ),
    Benchmark(
        "snn/memory",
        "activations kept by NACA, T = 20",
        "by BPTT",
        naca_memory,
        bptt_memory,
        0.2,
        "bytes",
    ),
    Benchmark(
        "snn/memory-of-time",
        "activations kept by NACA, T = 200",
        "the same, T = 20",
        lambda: naca_memory(200),
        naca_memory,
        1.1,
        "bytes",
    ),
    Scaling("scaling/snn-steps", "NACA step of a spiking network", "time steps", (10, 20, 40), naca_step, 1.1),
    Scaling("scaling/bptt-steps", "BPTT step of a spiking network", "time steps", (10, 20, 40), bptt_step),
)

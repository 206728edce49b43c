"""NACA on a spiking network against backpropagation through time: time and memory."""

from __future__ import annotations

from torch import nn

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import batch, begun, plain_step, session_step
from lit_meta.metrics.operations import SavedTensors
from lit_meta.networks import build_network
from lit_meta.networks.spiking import Learning
from lit_meta.rules import NACA

_BATCH = 64


def _network(learning: Learning, steps: int) -> nn.Module:
    return build_network("lif-mlp", inputs=784, hidden=[500], classes=10, steps=steps, learning=learning, seed=0)


def naca_step(steps: int = 20) -> Work:
    """One NACA step of a spiking network."""
    return session_step(begun(_network("last_step", steps), NACA()), *batch(_BATCH, 784, 10))


def bptt_step(steps: int = 20) -> Work:
    """The same step by backpropagation through time."""
    return plain_step(_network("bptt", steps), *batch(_BATCH, 784, 10))


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
    Benchmark("snn/time", "NACA step of a spiking network, T = 20", "BPTT", naca_step, bptt_step, 0.42),
    Benchmark(
        "snn/memory",
        "activations kept by NACA, T = 20",
        "by BPTT",
        naca_memory,
        bptt_memory,
        0.2,
        "bytes",
    ),
    Scaling("scaling/snn-steps", "NACA step of a spiking network", "time steps", (10, 20, 40, 80), naca_step, 1.1),
    Scaling("scaling/bptt-steps", "BPTT step of a spiking network", "time steps", (10, 20, 40, 80), bptt_step),
)

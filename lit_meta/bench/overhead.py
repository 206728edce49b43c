"""Overhead of sessions, callbacks and the ledger when there is nothing for them to do."""

from __future__ import annotations

from torch import nn

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import batch, begun, fit, plain_step, session_step
from lit_meta.cost.ledger import CostLedger
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.networks import build_network
from lit_meta.rules import NACA, Rule

_STEPS = 30


def _network() -> nn.Module:
    return build_network("mlp", inputs=784, hidden=[1000], classes=10, seed=0)


def _spiking() -> nn.Module:
    return build_network("lif-mlp", inputs=784, hidden=[500], classes=10, steps=20, seed=0)


def _batches(steps: int) -> list[tuple]:
    return [batch(256, 784, 10)] * steps


def _idle_callback() -> list[Metaplasticity]:
    return [Metaplasticity(Rule(), network="network")]


def _ledger() -> list[CostLedger]:
    return [CostLedger()]


def _fit(callbacks: object = ()) -> Work:
    return fit(_network(), _batches(_STEPS), callbacks=callbacks)


def _fit_locally(callbacks: object = ()) -> Work:
    return fit(_network(), _batches(_STEPS), rule=NACA(), callbacks=callbacks)


def _fit_spiking(callbacks: object = ()) -> Work:
    return fit(_spiking(), _batches(4), rule=NACA(), callbacks=callbacks)


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "overhead/session",
        "step through a session with an idle rule",
        "plain torch step",
        lambda: session_step(begun(_network(), Rule()), *batch(256, 784, 10)),
        lambda: plain_step(_network(), *batch(256, 784, 10)),
        1.03,
    ),
    Benchmark(
        "overhead/callback",
        f"{_STEPS} Trainer steps with an idle callback",
        "without",
        lambda: _fit(_idle_callback),
        _fit,
        1.03,
    ),
    Benchmark(
        "overhead/ledger",
        f"{_STEPS} Trainer steps with the cost ledger",
        "without",
        lambda: _fit(_ledger),
        _fit,
        1.05,
    ),
    Benchmark(
        "overhead/ledger-naca",
        f"{_STEPS} Trainer steps of NACA with the cost ledger",
        "without",
        lambda: _fit_locally(_ledger),
        _fit_locally,
        1.05,
    ),
    Benchmark(
        "overhead/ledger-snn",
        "4 Trainer steps of a spiking network (NACA, T = 20) with the cost ledger",
        "without",
        lambda: _fit_spiking(_ledger),
        _fit_spiking,
        1.05,
    ),
)

"""The step of EWC against a plain one and Avalanche's, and the Fisher information against a loop over samples."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import avalanche_ewc_step, batch, begun, plain_step, session_step
from lit_meta.functional.fisher import diagonal_fisher
from lit_meta.networks import build_network
from lit_meta.rules import EWC

# Experiences that have been consolidated before the steps that are measured.
_EXPERIENCES = 4
_SIZES = (784, 1000, 10)
_FISHER_SAMPLES = 128


def _network() -> nn.Module:
    return build_network("mlp", inputs=_SIZES[0], hidden=[_SIZES[1]], classes=_SIZES[2], output="identity", seed=0)


def ewc_step(experiences: int = _EXPERIENCES) -> Work:
    """One step of EWC that remembers so many experiences."""
    network = _network()
    session = begun(network, EWC(loss="mse"))
    x, y = batch(32, _SIZES[0], _SIZES[2])
    for _ in range(experiences):
        session_step(session, x, y)()
        session.end_experience([(x, y)])
        session.begin_experience()
    return session_step(session, *batch(256, _SIZES[0], _SIZES[2]))


def avalanche_step(mode: str) -> Work:
    """The same step with Avalanche's penalty."""
    return avalanche_ewc_step(_network(), *batch(256, _SIZES[0], _SIZES[2]), experiences=_EXPERIENCES, mode=mode)


def fisher() -> Work:
    """E[g²] of a batch of samples."""
    network, (x, y) = _network(), batch(_FISHER_SAMPLES, _SIZES[0], _SIZES[2])
    return lambda: diagonal_fisher(network, x, y)


def fisher_by_loop() -> Work:
    """The same by a backward pass for every sample."""
    network, (x, y) = _network(), batch(_FISHER_SAMPLES, _SIZES[0], _SIZES[2])

    def work() -> list[torch.Tensor]:
        totals = [torch.zeros_like(p) for p in network.parameters()]
        for one, label in zip(x.split(1), y.split(1), strict=True):
            network.zero_grad()
            F.cross_entropy(network(one), label).backward()
            for total, parameter in zip(totals, network.parameters(), strict=True):
                if parameter.grad is not None:
                    total.add_(parameter.grad.square())
        return [total / len(y) for total in totals]

    return work


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "ewc/plain",
        f"EWC step after {_EXPERIENCES} experiences",
        "plain torch step",
        ewc_step,
        lambda: plain_step(_network(), *batch(256, _SIZES[0], _SIZES[2])),
        1.25,
    ),
    Benchmark(
        "ewc/avalanche",
        f"EWC step after {_EXPERIENCES} experiences",
        "Avalanche's EWCPlugin (separate)",
        ewc_step,
        lambda: avalanche_step("separate"),
        0.7,
    ),
    Benchmark(
        "ewc/avalanche-online",
        f"EWC step after {_EXPERIENCES} experiences",
        "Avalanche's EWCPlugin (online)",
        ewc_step,
        lambda: avalanche_step("online"),
    ),
    Benchmark(
        "ewc/fisher",
        f"diagonal_fisher, {_FISHER_SAMPLES} samples",
        "a loop over the samples",
        fisher,
        fisher_by_loop,
        0.2,
    ),
    Scaling(
        "scaling/ewc-experiences",
        "EWC step",
        "experiences remembered",
        (2, 4, 8, 16),
        ewc_step,
        0.1,
    ),
)

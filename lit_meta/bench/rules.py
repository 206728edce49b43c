"""Steps with rules against the plain step and Avalanche's; Fisher information against a loop over samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import avalanche_ewc_step, batch, begun, plain_step, session_step
from lit_meta.functional import diagonal_fisher
from lit_meta.networks import build_network
from lit_meta.rules import Rule, build_rule

_INPUTS, _HIDDEN, _CLASSES, _BATCH = 784, [1000, 1000], 10, 256
_FISHER_SAMPLES = 100


def _network() -> nn.Module:
    return build_network(
        "mlp", inputs=_INPUTS, hidden=_HIDDEN, classes=_CLASSES, activation="relu", output="identity", seed=0
    )


def _batch(samples: int = _BATCH) -> tuple[Tensor, Tensor]:
    return batch(samples, _INPUTS, _CLASSES)


def consolidated_step(rule: Rule, experiences: int = 1) -> Work:
    """A training step with a rule that has this many experiences behind it."""
    network, (x, y) = _network(), _batch()
    session = begun(network, rule)
    few = x[:32], y[:32]
    for _ in range(experiences):
        session_step(session, *few)()
        session.end_experience([few])
        session.begin_experience()
    return session_step(session, x, y)


def fisher() -> Work:
    """The diagonal Fisher information of some samples."""
    network, (x, y) = _network(), _batch(_FISHER_SAMPLES)
    return lambda: diagonal_fisher(network, x, y)


def fisher_by_a_loop() -> Work:
    """The same with a backward pass per sample."""
    network, (x, y) = _network(), _batch(_FISHER_SAMPLES)
    parameters = list(network.parameters())

    def loop() -> list[Tensor]:
        totals = [torch.zeros_like(p) for p in parameters]
        for sample, label in zip(x.split(1), y.split(1), strict=True):
            gradients = torch.autograd.grad(F.cross_entropy(network(sample), label), parameters)
            torch._foreach_addcmul_(totals, gradients, gradients, value=1 / len(y))
        return totals

    return loop


def fisher_by_backpack() -> Work:
    """The same with BackPACK's sum of squared gradients."""
    from backpack import backpack, extend
    from backpack.extensions import SumGradSquared

    network, (x, y) = extend(_network()), _batch(_FISHER_SAMPLES)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    parameters: list[Any] = list(network.parameters())

    def work() -> list[Tensor]:
        network.zero_grad()
        with backpack(SumGradSquared()):
            loss(network(x), y).backward()
        return [parameter.sum_grad_squared / len(y) for parameter in parameters]

    return work


def _beside_the_plain_step(name: str, target: float | None, **hyperparameters: Any) -> Benchmark:
    return Benchmark(
        f"rules/{name}",
        f"step with {build_rule(name, **hyperparameters)!r}",
        "plain step",
        lambda: consolidated_step(build_rule(name, **hyperparameters)),
        lambda: plain_step(_network(), *_batch()),
        target,
    )


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    _beside_the_plain_step("ewc", 1.25),
    _beside_the_plain_step("si", 1.25),
    _beside_the_plain_step("mas", 1.25),
    _beside_the_plain_step("upgd", None),
    _beside_the_plain_step("benna-fusi", None),
    _beside_the_plain_step("bgd", None),
    _beside_the_plain_step("mesu", None),
    Benchmark(
        "rules/ewc-avalanche",
        "EWC step, any number of past experiences",
        "Avalanche's EWC penalty, one past experience",
        lambda: consolidated_step(build_rule("ewc")),
        lambda: avalanche_ewc_step(_network(), *_batch(), experiences=1),
        0.7,
    ),
    Benchmark(
        "rules/ewc-avalanche-5",
        "EWC step, any number of past experiences",
        "Avalanche's EWC penalty, five past experiences",
        lambda: consolidated_step(build_rule("ewc")),
        lambda: avalanche_ewc_step(_network(), *_batch(), experiences=5),
        0.7,
    ),
    Benchmark(
        "rules/fisher",
        f"Fisher information of {_FISHER_SAMPLES} samples",
        "a loop over the samples",
        fisher,
        fisher_by_a_loop,
        0.2,
    ),
    Benchmark(
        "rules/fisher-backpack",
        f"Fisher information of {_FISHER_SAMPLES} samples",
        "BackPACK",
        fisher,
        fisher_by_backpack,
        1.0,
        requires=("backpack",),
    ),
    Scaling(
        "scaling/ewc-experiences",
        "EWC step",
        "experiences remembered",
        (2, 4, 8, 16),
        lambda experiences: consolidated_step(build_rule("ewc"), experiences),
        0.1,
    ),
)

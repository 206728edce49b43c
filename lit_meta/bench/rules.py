"""The rules' steps against the plain step and Avalanche's, and the Fisher information against a loop over samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import avalanche_ewc_step, batch, plain_step, squared_error
from lit_meta.functional import diagonal_fisher
from lit_meta.networks import build_network
from lit_meta.rules import Rule, build_rule
from lit_meta.session import Session

_INPUTS, _HIDDEN, _CLASSES, _BATCH = 784, [1000, 1000], 10, 256
_FISHER_SAMPLES = 100


def _network() -> nn.Module:
    return build_network(
        "mlp", inputs=_INPUTS, hidden=_HIDDEN, classes=_CLASSES, activation="relu", output="identity", seed=0
    )


def _batch(samples: int = _BATCH) -> tuple[Tensor, Tensor]:
    return batch(samples, _INPUTS, _CLASSES)


def consolidated_step(rule: Rule) -> Work:
    """A training step with a rule that has one experience behind it."""
    network, (x, y) = _network(), _batch()
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        with session.step(x, y, optimizer):
            squared_error(network(x), y).backward()

    session.begin_experience()
    step()
    session.end_experience([(x, y)])
    session.begin_experience()
    return step


def lightning_epoch(with_callback: bool) -> Work:
    """Ten steps through a Trainer, with or without a callback whose rule answers no event."""
    import lightning as L

    from lit_meta.hosts.callback import Metaplasticity
    from lit_meta.hosts.module import MetaplasticModule

    x, y = _batch(10 * _BATCH)
    loader = DataLoader(TensorDataset(x, y), batch_size=_BATCH)
    module = MetaplasticModule(_network())
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Metaplasticity(Rule(), network="network")] if with_callback else [],
    )

    def epoch() -> None:
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        trainer.fit(module, loader)

    return epoch


def fisher() -> Work:
    """The diagonal Fisher information of some samples."""
    network, (x, y) = _network(), _batch(_FISHER_SAMPLES)
    return lambda: diagonal_fisher(network, x, y)


def fisher_by_a_loop() -> Work:
    """The same by a backward pass for every sample."""
    network, (x, y) = _network(), _batch(_FISHER_SAMPLES)
    parameters = list(network.parameters())

    def loop() -> None:
        totals = [torch.zeros_like(p) for p in parameters]
        for sample, label in zip(x.split(1), y.split(1), strict=True):
            gradients = torch.autograd.grad(F.cross_entropy(network(sample), label), parameters)
            torch._foreach_addcmul_(totals, gradients, gradients)

    return loop


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
    Benchmark(
        "rules/no-op",
        "10 Lightning steps with a callback whose rule does nothing",
        "10 Lightning steps",
        lambda: lightning_epoch(True),
        lambda: lightning_epoch(False),
        1.03,
    ),
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
)

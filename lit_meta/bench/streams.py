"""A whole stream through `fit_stream` against the same stream through Avalanche's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import quiet
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.networks import build_network
from lit_meta.streams.fit import fit_stream

_BATCH = 32

Strategy = Literal["Naive", "EWC", "SynapticIntelligence", "MAS"]
# By the names of `avalanche.training.supervised`, and what each needs beyond the common arguments.
_OPTIONS: Mapping[Strategy, Mapping[str, Any]] = {
    "Naive": {},
    "EWC": {"ewc_lambda": 1.0, "mode": "online", "decay_factor": 1.0},
    "SynapticIntelligence": {"si_lambda": 1.0},
    "MAS": {"lambda_reg": 1.0},
}


def _digits(experiences: int) -> Any:
    from lit_meta.data import scenario

    with quiet():
        return scenario("split-digits", experiences=experiences)


def _network() -> nn.Module:
    return build_network("mlp", inputs=64, hidden=[100], classes=10, output="identity", seed=0)


def lightning_stream(experiences: int = 5) -> Work:
    """Trains on every experience, and tests on all of them after each."""
    benchmark, network = _digits(experiences), _network()

    def work() -> None:
        with quiet():
            fit_stream(MetaplasticModule(network), benchmark, batch_size=_BATCH, accelerator="cpu")

    return work


def with_avalanche(
    benchmark: Any, model: nn.Module, *, lr: float, batch_size: int, strategy: Strategy = "Naive"
) -> Work:
    """One pass over every experience with a strategy of Avalanche, all tested before the first and after each."""
    options = _OPTIONS[strategy]
    with quiet():
        from avalanche.evaluation.metrics import accuracy_metrics
        from avalanche.training import supervised
        from avalanche.training.plugins import EvaluationPlugin

    def work() -> None:
        with quiet():
            learner = getattr(supervised, strategy)(
                model=model,
                optimizer=torch.optim.SGD(model.parameters(), lr=lr),
                criterion=nn.CrossEntropyLoss(),
                train_mb_size=batch_size,
                train_epochs=1,
                eval_mb_size=512,
                evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
                device="cpu",
                **options,
            )
            learner.eval(benchmark.test_stream)
            for experience in benchmark.train_stream:
                learner.train(experience)
                learner.eval(benchmark.test_stream)

    return work


def avalanche_stream(experiences: int = 5) -> Work:
    """The same with Avalanche's `Naive` strategy."""
    return with_avalanche(_digits(experiences), _network(), lr=0.1, batch_size=_BATCH)


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "stream/avalanche",
        "fit_stream, split-digits, 5 experiences",
        "Avalanche's Naive",
        lightning_stream,
        avalanche_stream,
        1.0,
    ),
)

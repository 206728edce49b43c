"""A whole stream through `fit_stream`, and its evaluation, against bare torch loops and against Avalanche's strategies.

Tensors of MNIST's shape in memory, two experiences of 5,120 samples, a network 784-1000-1000-10, batches of 256.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import batch, quiet
from lit_meta.bench.streams import Strategy, with_avalanche
from lit_meta.data.module import experience_tensors
from lit_meta.data.tensors import tensor_benchmark
from lit_meta.evaluation.accuracy import accuracy_of
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.networks import build_network
from lit_meta.rules import EWC, MAS, SI, Rule
from lit_meta.streams.fit import fit_stream

_BATCH = 256
_TEST_BATCH = 512
_EXPERIENCES = 2
_LR = 1e-3


def stream(samples: int = 5120, tests: int = 512) -> Any:
    """Experiences of random images and labels."""
    x, y = batch(_EXPERIENCES * samples, 784, 10)
    tested_x, tested_y = batch(_EXPERIENCES * tests, 784, 10)
    train = list(zip(x.split(samples), y.split(samples), strict=True))
    test = list(zip(tested_x.split(tests), tested_y.split(tests), strict=True))
    with quiet():
        return tensor_benchmark(train, test, name="MNIST's shape")


def network() -> nn.Module:
    """784-1000-1000-10 with ReLUs."""
    return build_network(
        "mlp", inputs=784, hidden=[1000, 1000], classes=10, activation="relu", output="identity", seed=0
    )


def through_fit_stream(benchmark: Any, model: nn.Module, rule: Rule | None = None) -> Work:
    """One pass over every experience, all of them tested before the first and after each."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=_LR)

    def work() -> None:
        with quiet():
            module = MetaplasticModule(model, rule=None if rule is None else rule.clone(), optimizer=optimizer)
            fit_stream(module, benchmark, batch_size=_BATCH, accelerator="cpu")

    return work


def through_a_bare_loop(benchmark: Any, model: nn.Module) -> Work:
    """The same by hand: shuffled batches, forward, cross-entropy, backward, SGD; and the same evaluations."""
    train = [experience_tensors(e) for e in benchmark.train_stream]
    evaluate = bare_evaluation(benchmark, model)

    def work() -> None:
        evaluate()
        model.train()
        for x, y in train:
            optimizer = torch.optim.SGD(model.parameters(), lr=_LR)
            for chosen in torch.randperm(len(y)).split(_BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
            evaluate()

    return work


def bare_evaluation(benchmark: Any, model: nn.Module) -> Work:
    """Accuracy on every test experience in a pass without gradients."""
    test = [experience_tensors(e) for e in benchmark.test_stream]

    def work() -> list[float]:
        model.eval()
        accuracies = []
        with torch.no_grad():
            for x, y in test:
                pairs = zip(x.split(_TEST_BATCH), y.split(_TEST_BATCH), strict=True)
                accuracies.append(sum(int((model(a).argmax(1) == b).sum()) for a, b in pairs) / len(y))
        model.train()
        return accuracies

    return work


def our_evaluation(benchmark: Any, model: nn.Module) -> Work:
    """Accuracy on every test experience, by the standard protocol."""
    test: list[tuple[Tensor, Tensor]] = [experience_tensors(e) for e in benchmark.test_stream]
    return lambda: accuracy_of(model, test, batch_size=_TEST_BATCH)


def through_avalanche(benchmark: Any, model: nn.Module, strategy: Strategy = "Naive") -> Work:
    """The same with a strategy of Avalanche."""
    return with_avalanche(benchmark, model, lr=_LR, batch_size=_BATCH, strategy=strategy)


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "fit/bare-loop",
        "fit_stream without a rule, 784-1000-1000-10",
        "a bare torch loop",
        lambda: through_fit_stream(stream(), network()),
        lambda: through_a_bare_loop(stream(), network()),
        1.15,
    ),
    Benchmark(
        "fit/evaluation",
        "evaluation of 10,000 samples, 784-1000-1000-10",
        "a bare pass without gradients",
        lambda: our_evaluation(stream(tests=5000), network()),
        lambda: bare_evaluation(stream(tests=5000), network()),
        1.15,
    ),
    Benchmark(
        "fit/avalanche-naive",
        "fit_stream without a rule, 784-1000-1000-10",
        "Avalanche's Naive",
        lambda: through_fit_stream(stream(), network()),
        lambda: through_avalanche(stream(), network()),
        1.0,
    ),
    Benchmark(
        "fit/avalanche-ewc",
        "fit_stream with online EWC, exact per-sample Fisher information",
        "Avalanche's EWC, of batch means",
        lambda: through_fit_stream(stream(), network(), EWC(strength=1.0, mode="online")),
        lambda: through_avalanche(stream(), network(), "EWC"),
    ),
    # On a CPU Avalanche's changes of the weights are zero (docs/rules.md), but it computes with them all the same.
    Benchmark(
        "fit/avalanche-si",
        "fit_stream with SI",
        "Avalanche's SynapticIntelligence",
        lambda: through_fit_stream(stream(), network(), SI(strength=1.0)),
        lambda: through_avalanche(stream(), network(), "SynapticIntelligence"),
    ),
    Benchmark(
        "fit/avalanche-mas",
        "fit_stream with MAS, exact per-sample importances",
        "Avalanche's MAS, of batch means",
        lambda: through_fit_stream(stream(), network(), MAS(strength=2.0)),
        lambda: through_avalanche(stream(), network(), "MAS"),
    ),
)

"""NACA's step against backpropagation, and against the matrix products that it needs at the least."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.bench._work import batch, begun, plain_step, session_step
from lit_meta.networks import build_network
from lit_meta.rules import NACA

_INPUTS, _WIDTH, _CLASSES, _BATCH = 784, 1000, 10, 256


def _network(depth: int, width: int = _WIDTH, classes: int = _CLASSES) -> nn.Module:
    return build_network("mlp", inputs=_INPUTS, hidden=[width] * depth, classes=classes, seed=0)


def naca_step(depth: int, width: int = _WIDTH, classes: int = _CLASSES) -> Work:
    """One NACA step of a logistic multilayer perceptron."""
    return session_step(begun(_network(depth, width, classes), NACA()), *batch(_BATCH, _INPUTS, classes))


def backpropagation_step(depth: int, width: int = _WIDTH, classes: int = _CLASSES) -> Work:
    """The same step by backpropagation."""
    return plain_step(_network(depth, width, classes), *batch(_BATCH, _INPUTS, classes))


def gated_step(width: int = _WIDTH) -> Work:
    """The same step with one hidden layer whose published gate, known before the layer runs, opens about 1% of the units."""
    network = build_network(
        "mlp",
        inputs=_INPUTS,
        hidden=[width],
        classes=_CLASSES,
        gate="batch",
        gate_margin=0.01,
        skip_closed=True,
        seed=0,
    )
    return session_step(begun(network, NACA()), *batch(_BATCH, _INPUTS, _CLASSES))


def bare_products(depth: int, width: int = _WIDTH, classes: int = _CLASSES) -> Work:
    """The matrix products of the same step and nothing else: one forward and one weight gradient per layer."""
    sizes = [_INPUTS, *[width] * depth, classes]
    weights = [torch.rand(o, i) for i, o in pairwise(sizes)]
    activities = [torch.rand(_BATCH, size) for size in sizes]

    def products() -> None:
        for weight, before, after in zip(weights, activities[:-1], activities[1:], strict=True):
            before @ weight.T
            after.T @ before

    return products


def _bp_width(width: int) -> Work:
    return backpropagation_step(1, width)


def _against_backpropagation(depth: int, target: float) -> Benchmark:
    return Benchmark(
        f"naca/{depth}-hidden",
        f"NACA step, {depth} hidden of {_WIDTH}",
        "backpropagation",
        lambda: naca_step(depth),
        lambda: backpropagation_step(depth),
        target,
    )


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    _against_backpropagation(1, 1.0),
    _against_backpropagation(3, 0.80),
    _against_backpropagation(6, 0.75),
    Benchmark(
        "naca/floor",
        f"NACA step, 3 hidden of {_WIDTH}",
        "its bare matrix products",
        lambda: naca_step(3),
        lambda: bare_products(3),
        1.3,
    ),
    Scaling("scaling/naca-width", "NACA step, 1 hidden", "hidden width", (500, 1000, 2000), lambda w: naca_step(1, w)),
    Scaling("scaling/bp-width", "backpropagation", "hidden width", (500, 1000, 2000), _bp_width),
    Scaling("scaling/naca-depth", "NACA step, width 1000", "hidden layers", (2, 4, 8), naca_step, 1.05),
    Scaling(
        "scaling/naca-classes",
        "NACA step, 1 hidden of 1000",
        "classes",
        (10, 40, 160),
        lambda classes: naca_step(1, classes=classes),
        0.5,
    ),
    Benchmark(
        "naca/closed-units",
        "NACA step, 1 hidden of 1000, 1% of the units open",
        "backpropagation without a gate",
        gated_step,
        lambda: backpropagation_step(1),
        0.35,
    ),
)

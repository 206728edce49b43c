"""Learning the images of one MNIST class by a readout of fixed features, against backpropagation on the same images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.core.session import Session
from lit_meta.networks import build_network
from lit_meta.rules import CriticalPeriod, RecursiveReadout
from lit_meta.utils.modes import matmul_precision

# About the images of one class of MNIST; the head is solved once for them, as in a stream of ten classes.
_CLASS = 6_000
_BATCH = 1_000


def _images(samples: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(samples, 1, 28, 28, generator=generator), torch.randint(10, (samples,), generator=generator)
    return list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))


def learn_one_class(
    *, filters: tuple[int, ...] = (100, 100, 100), expansion: int | None = 8_000, samples: int = _CLASS
) -> Work:
    """The network and rules of ``recursive-readout-mnist``: features, sums, and one solve of the head."""
    batches = _images(samples)
    network = build_network(
        "patch-net",
        input_shape=[1, 28, 28],
        filters=filters,
        kernels=(7,) if len(filters) == 1 else (5, 7, 9),
        parallel=True,
        classes=10,
        padding=False,
        expansion=expansion,
        precision="bfloat16",
        seed=0,
    )
    session = Session(network, [CriticalPeriod(samples=500, threshold=1.0), RecursiveReadout(ridge=1e-4)])
    optimizer = torch.optim.SGD(network.head.parameters(), lr=0.1)  # type: ignore[union-attr, arg-type]

    def work() -> None:
        with matmul_precision("medium"):
            session.begin_experience()
            for x, y in batches:
                with session.step(x, y, optimizer):
                    F.cross_entropy(network(x), y).backward()
            session.end_experience()

    return work


def backpropagate_one_class(
    *, channels: tuple[int, ...] = (64, 128), hidden: int = 1_000, samples: int = _CLASS
) -> Work:
    """A tenth of an epoch of a convolutional network, in float32 and batches of 32."""
    layers: list[nn.Module] = []
    before = 1
    for width in channels:
        layers += [nn.Conv2d(before, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        before = width
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 49, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batches = [pair for x, y in _images(samples) for pair in zip(x.split(32), y.split(32), strict=True)]

    def work() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()

    return work


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "readout/mnist",
        "6,000 images learned by the MNIST readout (99 %), including features and one solve",
        "backpropagation, conv64-conv128-FC1000, one pass over as many images",
        learn_one_class,
        backpropagate_one_class,
        1.0,
    ),
    Benchmark(
        "readout/mnist-small",
        "6,000 images learned by 100 filters without an expansion (98 %)",
        "backpropagation, conv16-conv32-FC128, one pass over as many images",
        lambda: learn_one_class(filters=(100,), expansion=None),
        lambda: backpropagate_one_class(channels=(16, 32), hidden=128),
        1.0,
    ),
)

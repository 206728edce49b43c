"""A head on a frozen backbone: from images, and from features that were computed once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Work
from lit_meta.core.session import Session
from lit_meta.networks.backbones import Backbone
from lit_meta.networks.backbones.forms import make_form
from lit_meta.rules import RecursiveReadout

_IMAGES = 32


def _network() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone("torchvision:resnet18", classes=10, size=64, pretrained=False)


def _images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(_IMAGES, 3, 32, 32, generator=generator), torch.arange(_IMAGES) % 10


def learn(*, from_features: bool) -> Work:
    """A training step of a readout on images, or on their features."""
    network, (x, y) = _network(), _images()
    inputs = network.extract(x) if from_features else x
    session = Session(network, RecursiveReadout(ridge=1e-2))
    optimizer = torch.optim.SGD(network.head.parameters(), lr=0.1)
    session.begin_experience()

    def work() -> None:
        with session.step(inputs, y, optimizer):
            F.cross_entropy(network(inputs), y).backward()

    return work


def run_form(name: str) -> Work:
    """Features of a batch by one form of the network."""
    network, (x, _) = _network(), _images()
    prepared = network.preparation(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form = make_form(network, name, _IMAGES)

    def work() -> None:
        with torch.inference_mode():
            form.run(prepared)

    return work


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "backbone/features-once",
        "a step of a readout on 32 kept features",
        "the same step on images, through a frozen ResNet-18 at 64 pixels",
        lambda: learn(from_features=True),
        lambda: learn(from_features=False),
        0.2,
    ),
    Benchmark(
        "backbone/form",
        "32 images through a frozen ResNet-18, batch normalisation folded, channels last",
        "the network as it is",
        lambda: run_form("frozen"),
        lambda: run_form("eager"),
        1.0,
    ),
)

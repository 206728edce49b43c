"""Pieces of work that several benchmarks share: networks, batches and training steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Work
from lit_meta.rules import Rule
from lit_meta.session import Session


def batch(samples: int, inputs: int, classes: int) -> tuple[Tensor, Tensor]:
    """Random intensities (samples, inputs) and labels (samples,), the same every time."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, inputs, generator=generator)
    return x, torch.randint(0, classes, (samples,), generator=generator)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance to the one-hot label, averaged over the batch."""
    return 0.5 * (outputs - F.one_hot(targets, outputs.shape[1]).to(outputs)).square().sum() / len(outputs)


def plain_step(network: nn.Module, x: Tensor, y: Tensor) -> Work:
    """A training step as people write it: forward, backward, SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        squared_error(network(x), y).backward()
        optimizer.step()

    return step


def session_step(network: nn.Module, rules: Rule | Sequence[Rule], x: Tensor, y: Tensor) -> Work:
    """The same step with rules bound to the network, inside an experience that was begun."""
    session = Session(network, rules)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    session.begin_experience()

    def step() -> None:
        with session.step(x, y, optimizer):
            squared_error(network(x), y).backward()

    return step

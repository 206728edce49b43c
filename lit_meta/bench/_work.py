"""Work shared by several benchmarks: batches, training steps and fits of a Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_meta.bench._benchmark import Work
from lit_meta.core.session import Session
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.rules import Rule

Batch = tuple[Tensor, Tensor]


def batch(samples: int, inputs: int, classes: int) -> Batch:
    """Random intensities (samples, inputs) and labels (samples,), the same on every call."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, inputs, generator=generator)
    return x, torch.randint(0, classes, (samples,), generator=generator)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance to the one-hot label, averaged over the batch."""
    return 0.5 * (outputs - F.one_hot(targets, outputs.shape[1]).to(outputs)).square().sum() / len(outputs)


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every subject and baseline; its steps are so small that the work stays the same throughout."""
    return torch.optim.SGD(network.parameters(), lr=1e-4)


def plain_step(network: nn.Module, x: Tensor, y: Tensor) -> Work:
    """A training step as people write it: forward, backward, SGD."""
    optimizer = sgd(network)

    def step() -> None:
        optimizer.zero_grad()
        squared_error(network(x), y).backward()
        optimizer.step()

    return step


def begun(network: nn.Module, rules: Rule | Sequence[Rule]) -> Session:
    """A session of rules on a network, inside an experience."""
    session = Session(network, rules)
    session.begin_experience()
    return session


def session_step(session: Session, x: Tensor, y: Tensor) -> Work:
    """The same step with rules, through their session."""
    network, optimizer = session.network, sgd(session.network)

    def step() -> None:
        with session.step(x, y, optimizer):
            squared_error(network(x), y).backward()

    return step


def avalanche_ewc_step(network: nn.Module, x: Tensor, y: Tensor, *, experiences: int) -> Work:
    """The plain step plus the penalty of Avalanche's EWC plugin, without the rest of Avalanche's strategy."""
    with quiet():
        from avalanche.training.plugins import EWCPlugin
        from avalanche.training.utils import copy_params_dict, zerolike_params_dict

    plugin = EWCPlugin(1.0, mode="separate")
    for experience in range(experiences):
        plugin.saved_params[experience] = copy_params_dict(network)
        plugin.importances[experience] = zerolike_params_dict(network)
    optimizer = sgd(network)
    strategy: Any = SimpleNamespace(
        clock=SimpleNamespace(train_exp_counter=experiences), model=network, device=torch.device("cpu"), loss=None
    )

    def step() -> None:
        optimizer.zero_grad()
        strategy.loss = squared_error(network(x), y)
        plugin.before_backward(strategy)
        strategy.loss.backward()
        optimizer.step()

    return step


def fit(network: nn.Module, batches: Sequence[Batch], *, rule: Rule | None = None, callbacks: Any = ()) -> Work:
    """A whole fit of a Trainer over the given batches; ``callbacks()`` creates new callbacks for every fit."""

    def work() -> None:
        with quiet():
            module = MetaplasticModule(network, rule=None if rule is None else rule.clone(), loss="mse", optimizer=_sgd)
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=callbacks() if callable(callbacks) else list(callbacks),
            )
            # The loader passes the finished batches on. (Lightning would take a bare list for several loaders.)
            trainer.fit(module, DataLoader(list(batches), batch_size=None))  # type: ignore[arg-type]

    return work


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-4)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the messages that Lightning and Avalanche print on every start."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

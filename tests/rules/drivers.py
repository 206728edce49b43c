"""The same training through every host: what a rule does must not depend on where it lives."""

from __future__ import annotations

import copy
from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import FabricSession, Metaplasticity, MetaplasticityPlugin, MetaplasticModule, Session
from lit_meta.rules import Rule


def grown(old: nn.Module, new: nn.Module) -> nn.Module:
    """A layer of a larger size with the old one's values in the part that it had."""
    with torch.no_grad():
        for before, now in zip(old.parameters(), new.parameters(), strict=True):
            now[tuple(slice(size) for size in before.shape)] = before
    return new


Data = list[tuple[Tensor, Tensor]]
BATCH, EPOCHS = 9, 2


def optimizer_for(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)


def plain_loop(network: nn.Module, rule: Rule, data: Data) -> None:
    session = Session(network, rule)
    for x, y in data:
        loader = DataLoader(TensorDataset(x, y), batch_size=BATCH)
        optimizer = optimizer_for(network)
        with session.experience(loader):
            for _ in range(EPOCHS):
                for inputs, targets in loader:
                    with session.step(inputs, targets, optimizer):
                        F.cross_entropy(network(inputs), targets).backward()


def trainer(**options: object) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": EPOCHS,
    }
    return L.Trainer(**{**quiet, **options})


class UserModule(L.LightningModule):
    """A LightningModule as users write it; it knows nothing of metaplasticity."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.body = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(self(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_for(self.body)


def fit_each(module: L.LightningModule, data: Data, callbacks: list[L.Callback]) -> None:
    for x, y in data:
        trainer(callbacks=callbacks).fit(module, DataLoader(TensorDataset(x, y), batch_size=BATCH))


def callback(network: nn.Module, rule: Rule, data: Data) -> None:
    fit_each(UserModule(network), data, [Metaplasticity(rule, network="body")])


def wrapper(network: nn.Module, rule: Rule, data: Data) -> None:
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9)  # noqa: E731
    fit_each(MetaplasticModule(network, rule=rule, optimizer=optimizer), data, [])


def avalanche(network: nn.Module, rule: Rule, data: Data) -> None:
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.evaluation.metrics import loss_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    sets = []
    for x, y in data:
        plain = TensorDataset(x, y)
        plain.targets = y.tolist()
        sets.append(as_classification_dataset(plain))
    benchmark = with_classes_timeline(benchmark_from_datasets(train=sets))
    plugin = MetaplasticityPlugin(rule)
    for experience in benchmark.train_stream:
        # A new optimizer for each experience, as the other hosts have.
        strategy = Naive(
            model=network,
            optimizer=optimizer_for(network),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            train_epochs=EPOCHS,
            plugins=[plugin],
            evaluator=EvaluationPlugin(loss_metrics(experience=True), loggers=[]),
            device="cpu",
        )
        strategy.train(experience, shuffle=False, drop_last=False)


def fabric(network: nn.Module, rule: Rule, data: Data) -> None:
    fabric = L.Fabric(accelerator="cpu", devices=1)
    session = None
    for x, y in data:
        module, optimizer = fabric.setup(network, optimizer_for(network))
        loader = fabric.setup_dataloaders(DataLoader(TensorDataset(x, y), batch_size=BATCH))
        session = session or FabricSession(fabric, module, rule)
        with session.experience(loader):
            for _ in range(EPOCHS):
                for inputs, targets in loader:
                    with session.step(inputs, targets, optimizer):
                        fabric.backward(F.cross_entropy(module(inputs), targets))


HOSTS: dict[str, Callable[[nn.Module, Rule, Data], None]] = {
    "callback": callback,
    "wrapper": wrapper,
    "avalanche": avalanche,
    "fabric": fabric,
}


def weights_after(host: Callable[[nn.Module, Rule, Data], None], network: nn.Module, rule: Rule, data: Data) -> Tensor:
    """All parameters after training, as one vector."""
    network = copy.deepcopy(network)
    host(network, rule, data)
    return torch.cat([p.detach().flatten() for p in network.parameters()])

"""Streams of modules that grow, that are told the task, and that come from the older name of Lightning's package."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lit_meta import EWC, Metaplasticity, MetaplasticModule, fit_stream, scenario
from lit_meta.data import experience_tensors


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.classifier = IncrementalClassifier(32, initial_out_features=2, masking=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


class Heads(MultiTaskModule):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.heads = MultiHeadClassifier(32, initial_out_features=10, masking=False)

    def forward(self, x: torch.Tensor, task_labels: torch.Tensor) -> torch.Tensor:
        return self.heads(self.features(x), task_labels)


def multi_head_benchmark(experiences: int = 2):
    sets = []
    for stream in ("train_stream", "test_stream"):
        x, y = experience_tensors(getattr(scenario("split-digits", experiences=1), stream)[0])
        data = TensorDataset(x, y)
        data.targets = y.tolist()
        sets.append(data)
    return nc_benchmark(*sets, n_experiences=experiences, task_labels=True, shuffle=False)


def module(network: nn.Module, rule: EWC | None = None) -> MetaplasticModule:
    return MetaplasticModule(network, rule=rule, optimizer={"name": "sgd", "lr": 0.1})


def test_an_incremental_head_grows_with_the_stream_and_memory_grows_with_it(tmp_path):
    torch.manual_seed(0)
    learner = module(Growing(), EWC(strength=0.01))
    stream = scenario("split-digits", experiences=5, class_order=range(10))
    before = torch.get_rng_state()
    options = {"max_epochs": 4, "batch_size": 16, "accelerator": "cpu", "run_dir": tmp_path}
    result = fit_stream(learner, stream, **options)
    assert torch.equal(before, torch.get_rng_state())
    assert learner.network.classifier.classifier.out_features == 10
    assert learner.plasticity.rules[0].state["importance"]["classifier.classifier.weight"].shape == (10, 32)
    assert float(result.accuracy_matrix.diagonal().mean()) > 0.9

    torch.manual_seed(0)
    again = fit_stream(module(Growing(), EWC(strength=0.01)), stream, **options, resume=True)
    assert torch.equal(again.accuracy_matrix, result.accuracy_matrix)


def test_a_multi_task_module_is_told_the_task_in_learning_consolidation_and_testing():
    torch.manual_seed(0)
    learner = module(Heads(), EWC(strength=1.0))
    result = fit_stream(learner, multi_head_benchmark(), max_epochs=8, batch_size=16, accelerator="cpu")
    # Each task has a head of its own, which the other never touches.
    assert float(result.accuracy_matrix.diagonal().min()) > 0.9
    assert float(result.accuracy_matrix[-1, 0]) > 0.7
    importance = learner.plasticity.rules[0].state["importance"]
    assert all(bool(importance[f"heads.classifiers.{task}.classifier.weight"].any()) for task in "01")


def test_a_module_of_the_older_package_learns_a_stream_as_one_of_the_newer():
    pl = pytest.importorskip("pytorch_lightning")

    def make(base: type) -> nn.Module:
        class Classifier(base):
            def __init__(self) -> None:
                super().__init__()
                self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

            def forward(self, x):
                return self.network(x)

            def training_step(self, batch, batch_idx):
                return F.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        torch.manual_seed(0)
        return Classifier()

    stream = scenario("split-digits", experiences=2)
    results = []
    for package in (L, pl):
        learner = make(package.LightningModule)
        rule = EWC(strength=10.0)
        fit_stream(learner, stream, max_epochs=2, accelerator="cpu", callbacks=[Metaplasticity(rule)])
        results.append((learner.network[1].weight.detach(), rule.state["importance"]["network.1.weight"]))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)

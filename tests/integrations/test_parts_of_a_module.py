"""A rule bound to a part of a LightningModule, to several parts, or to one network after another."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import EWC, NACA, SI, Metaplasticity, MetaplasticModule, RecursiveReadout, StreamingLDA
from tests.rules.drivers import trainer


class Classifier(L.LightningModule):
    """A backbone with statistics and dropout beside its head."""

    def __init__(self, trains: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
        self.backbone.requires_grad_(trains)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.backbone(x))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


def loader(seed: int = 0) -> DataLoader:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, torch.arange(24) % 3), batch_size=8)


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("rule", (RecursiveReadout(), StreamingLDA()), ids=lambda rule: type(rule).__name__)
def test_a_frozen_backbone_beside_the_head_keeps_still_as_one_inside_the_network_does(rule):
    weights = []
    for part in (None, "head"):
        module = Classifier()
        statistics = module.backbone[1].running_mean.clone()
        trainer(callbacks=[Metaplasticity(rule.clone(), network=part)], max_epochs=1).fit(module, loader())
        assert torch.equal(module.backbone[1].running_mean, statistics)
        weights.append(module.eval().head.weight.detach().clone())
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], Classifier().head.weight)


def test_the_host_gets_its_modes_back():
    modes = []

    class Modes(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            modes.append([part.training for part in module.backbone])

    module = Classifier().train()
    trainer(callbacks=[Modes(), Metaplasticity(RecursiveReadout(), network="head")], max_epochs=1).fit(module, loader())
    assert modes[0] == [True] * 4
    assert all(part.training for part in module.modules())


def test_a_backbone_that_is_trained_beside_a_head_that_needs_still_features_is_refused():
    module = Classifier(trains=True)
    before = copy.deepcopy(module.state_dict())
    callback = Metaplasticity(RecursiveReadout(), network="head")
    with pytest.raises(ValueError, match="come from parameters outside it that are being trained"):
        trainer(callbacks=[callback], max_epochs=1).fit(module, loader())
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert not module.head._forward_pre_hooks


@pytest.mark.parametrize("rule", (EWC(), SI()), ids=lambda rule: type(rule).__name__)
def test_a_rule_does_not_take_its_memory_to_another_network(rule):
    rule = rule.clone()
    trainer(max_epochs=1).fit(MetaplasticModule(mlp(0), rule=rule), loader())
    other = MetaplasticModule(mlp(1), rule=rule)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="has learned in another network"):
        trainer(max_epochs=1).fit(other, loader(1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    # What is loaded on purpose is taken.
    rule.state.load_state_dict(rule.state.state_dict())
    trainer(max_epochs=1).fit(other, loader(1))


@pytest.mark.parametrize(
    "copied", (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))), ids=("deepcopy", "pickle")
)
def test_a_copy_of_a_network_with_its_rule_learns_on_as_the_original(copied):
    module = MetaplasticModule(mlp(0), rule=EWC(strength=50.0))
    trainer(max_epochs=1).fit(module, loader())
    twin = copied(module)
    for learner in (module, twin):
        trainer(max_epochs=1).fit(learner, loader(1))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True))


def test_one_rule_in_two_callbacks_is_refused():
    rule, module = EWC(), Classifier(trains=True)
    callbacks = [Metaplasticity(rule, network="backbone.0"), Metaplasticity(rule, network="head")]
    with pytest.raises(ValueError, match="two callbacks have the same EWC"):
        trainer(callbacks=callbacks, max_epochs=1).fit(module, loader())


class TimeFirst(nn.Module):
    """As many time steps as samples: shapes do not tell which is which."""

    step_mode = "m"

    def __init__(self):
        super().__init__()
        self.layers = mlp(0)

    def forward(self, x):
        return self.layers(x.unsqueeze(0).expand(8, -1, -1)).mean(0)


def test_a_network_in_multi_step_mode_is_refused_by_a_rule_of_labelled_errors():
    with pytest.raises(ValueError, match="multi-step mode"):
        trainer(max_epochs=1).fit(MetaplasticModule(TimeFirst(), rule=NACA()), loader())


class Logits(nn.Module):
    """Gives an object with its outputs in it."""

    def __init__(self):
        super().__init__()
        self.layers = mlp(0)

    def forward(self, x):
        return SimpleNamespace(logits=self.layers(x))


@pytest.mark.parametrize("rule", (None, EWC(), RecursiveReadout()), ids=lambda rule: type(rule).__name__)
def test_a_wrapped_network_that_gives_no_tensor_is_refused_in_a_sentence(rule):
    module = MetaplasticModule(Logits(), rule=rule)
    with pytest.raises(
        (TypeError, ValueError), match=r"gives a SimpleNamespace, and this module needs a tensor .*logits"
    ):
        trainer(max_epochs=1).fit(module, loader())

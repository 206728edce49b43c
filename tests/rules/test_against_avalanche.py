"""EWC, SI and MAS beside Avalanche's plugins on the same network and stream.

Conventions that differ, for equal penalties:

========  ==============================  =====================================  ==========================
rule      Avalanche 0.6                   here                                   so that
========  ==============================  =====================================  ==========================
EWC       λ Σ F (θ − θ*)²                 ½ strength Σ F (θ − θ*)²               strength = 2 λ
EWC       F of the mean gradient of a     F of every sample's gradient           equal for batches of one
          batch, squared                                                         sample only
MAS       λ Σ Ω (θ − θ*)²                 ½ strength Σ Ω (θ − θ*)²               strength = 2 λ
MAS       Ω of a batch's mean, absolute   Ω of every sample, absolute            equal for batches of one
MAS       Ω ← α Ω + (1 − α) new           Ω ← decay Ω + new                      α = ½, decay = 1: half the Ω
SI        ½ λ Σ Ω (θ − θ*)²               ½ strength Σ Ω (θ − θ*)²               strength = λ
SI        Ω cut off above 0.001           Ω not below 0
========  ==============================  =====================================  ==========================
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lit_meta import EWC, MAS, SI, MetaplasticityPlugin

LR = 0.05
# The SI plugin of Avalanche squares tensors by NumPy.
squared_by_numpy = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")


def train(network, data, plugin, *, batch=1, optimizer=None):
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
    strategy = Naive(
        model=network,
        optimizer=optimizer or torch.optim.SGD(network.parameters(), lr=LR),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=1,
        plugins=[plugin],
        evaluator=EvaluationPlugin(loss_metrics(experience=True), loggers=[]),
        device="cpu",
    )
    for experience in with_classes_timeline(benchmark_from_datasets(train=sets)).train_stream:
        strategy.train(experience, shuffle=False, drop_last=False)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@torch.no_grad()
def copied_weights(model, target, excluded):
    """What `SynapticIntelligencePlugin.extract_weights` means to do."""
    from avalanche.training.plugins import SynapticIntelligencePlugin

    for name, parameter in SynapticIntelligencePlugin.allowed_parameters(model, excluded):
        target[name].data = parameter.detach().clone().flatten()


@pytest.fixture
def three(two_experiences):
    (x0, y0), (x1, y1) = two_experiences
    return [(x0[:12], y0[:12]), (x1[:12], y1[:12]), (x0[12:24], y1[12:24])]


def test_ewc_gives_the_weights_of_avalanche_where_its_fisher_is_right(make_network, three):
    from avalanche.training.plugins import EWCPlugin

    theirs = train(make_network(), three, EWCPlugin(ewc_lambda=20.0))
    ours = train(make_network(), three, MetaplasticityPlugin(EWC(strength=40.0)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_online_ewc_gives_the_weights_of_avalanche_too(make_network, three):
    from avalanche.training.plugins import EWCPlugin

    theirs = train(make_network(), three, EWCPlugin(ewc_lambda=20.0, mode="online", decay_factor=0.5))
    ours = train(make_network(), three, MetaplasticityPlugin(EWC(strength=40.0, mode="online", decay=0.5)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_fisher_of_avalanche_shrinks_as_batches_grow_and_ours_does_not(make_network, three):
    from avalanche.training.plugins import EWCPlugin

    def frozen(network):
        return torch.optim.SGD(network.parameters(), lr=0.0)

    theirs, ours = {}, {}
    for batch in (1, 12):
        plugin, network = EWCPlugin(ewc_lambda=0.0), make_network()
        train(network, three[:1], plugin, batch=batch, optimizer=frozen(network))
        theirs[batch] = sum(importance.data.sum().item() for importance in plugin.importances[0].values())
        rule, network = EWC(), make_network()
        train(network, three[:1], MetaplasticityPlugin(rule), batch=batch, optimizer=frozen(network))
        ours[batch] = sum(importance.sum().item() for importance in rule.state["importance"].values())
    assert ours[12] == pytest.approx(ours[1], rel=1e-5)
    assert theirs[1] == pytest.approx(ours[1], rel=1e-5)
    assert theirs[12] < 0.5 * theirs[1]


def test_mas_gives_the_weights_of_avalanche_where_its_importance_is_right(make_network, three):
    from avalanche.training.plugins import MASPlugin

    # Two experiences: the running mean of Avalanche and our sum part only after the second consolidation.
    theirs = train(make_network(), three[:2], MASPlugin(lambda_reg=0.1))
    ours = train(make_network(), three[:2], MetaplasticityPlugin(MAS(strength=0.2)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_importance_of_avalanches_mas_cancels_between_samples(make_network, three):
    from avalanche.training.plugins import MASPlugin

    found = {}
    for batch in (1, 12):
        network = make_network()
        plugin = MASPlugin(lambda_reg=0.0)
        train(network, three[:1], plugin, batch=batch, optimizer=torch.optim.SGD(network.parameters(), lr=0.0))
        found[batch] = sum(importance.data.sum().item() for importance in plugin.importance.values())
    assert found[12] < 0.9 * found[1]


@squared_by_numpy
def test_avalanches_si_integrates_nothing_on_a_cpu_and_equals_naive_training(make_network, three):
    from avalanche.core import SupervisedPlugin
    from avalanche.training.plugins import SynapticIntelligencePlugin

    plugin = SynapticIntelligencePlugin(si_lambda=1e6)
    theirs = train(make_network(), three, plugin)
    naive = train(make_network(), three, SupervisedPlugin())
    ours = train(make_network(), three, MetaplasticityPlugin(SI(strength=1.0)))
    # `parameter.detach().cpu().flatten()` shares memory with the parameter, so that "before" is always "now".
    assert all((t.data == 0).all() for t in plugin.syn_data["trajectory"].values())
    assert torch.equal(theirs, naive)
    assert not torch.equal(ours, naive)


@squared_by_numpy
def test_the_path_of_si_is_avalanches_once_its_snapshots_are_copies(make_network, three, monkeypatch):
    from avalanche.training.plugins import SynapticIntelligencePlugin

    monkeypatch.setattr(SynapticIntelligencePlugin, "extract_weights", staticmethod(copied_weights))
    plugin, rule = SynapticIntelligencePlugin(si_lambda=0.0, eps=0.1), SI(strength=0.0, damping=0.1)
    theirs = train(make_network(), three[:1], plugin)
    ours = train(make_network(), three[:1], MetaplasticityPlugin(rule))
    torch.testing.assert_close(ours, theirs)
    for name, importance in rule.state["importance"].items():
        found = plugin.ewc_data[1][name].data.view_as(importance)
        torch.testing.assert_close(found.clamp(min=0.0), importance.clamp(max=0.001), rtol=1e-4, atol=1e-7)


@squared_by_numpy
def test_avalanches_si_integrates_its_own_penalty_too(make_network, three, monkeypatch):
    from avalanche.training.plugins import SynapticIntelligencePlugin

    monkeypatch.setattr(SynapticIntelligencePlugin, "extract_weights", staticmethod(copied_weights))
    gradients = {}

    class Spy(SynapticIntelligencePlugin):
        def before_backward(self, strategy, **kwargs):
            task = torch.autograd.grad(strategy.loss, list(strategy.model.parameters()), retain_graph=True)
            gradients["task"] = torch.cat([g.flatten() for g in task])
            super().before_backward(strategy, **kwargs)

    plugin = Spy(
        si_lambda=[0.0, 1e3]
    )  # Importances are cut off at 0.001, so that a penalty that shows needs a large λ.
    train(make_network(), three[:2], plugin)
    integrated = torch.cat([gradient.data.flatten() for gradient in plugin.syn_data["grad"].values()])
    assert (integrated - gradients["task"]).abs().max() > 1e-4
    # `test_si` holds that ours is the task's gradient alone, to the last digit.


def test_a_memory_that_is_not_there_is_never_a_zero(make_network, three):
    rule = EWC()
    network = make_network()
    train(network, three[:1], MetaplasticityPlugin(rule))
    held = copy.deepcopy(rule.state["importance"])
    with pytest.raises(KeyError, match="no 'importance' of parameter 'other'"):
        rule.state.tensors("importance", [*held, "other"])

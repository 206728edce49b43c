"""Frozen means frozen: a pretrained backbone with normalisation and dropout gives joint ridge regression in every host."""

from __future__ import annotations

import copy

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import EWC, Metaplasticity, MetaplasticityPlugin, MetaplasticModule, Session, fit_stream
from lit_meta.core.frozen import Frozen
from lit_meta.data import scenario
from lit_meta.data.module import experience_tensors
from lit_meta.evaluation.accuracy import predict
from lit_meta.rules import CriticalPeriod, RecursiveReadout, StreamingLDA

RIDGE = 1e-3
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Residual(nn.Module):
    """A small residual network as people write it, with all that depends on the mode: modules, and a function in the root."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 10)  # Registered first, as in some backbones; the head all the same.
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout2d(0.3),
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
        )  # fmt: skip

    def features(self, x):
        x = self.stem(x.view(-1, 1, 8, 8))
        x = F.relu(x + self.block(x))
        return F.dropout(F.adaptive_max_pool2d(x, 1).flatten(1), 0.5, self.training)

    def forward(self, x):
        return self.fc(self.features(x))


def digits():
    benchmark = scenario("split-digits", experiences=10, class_order=range(10))
    train = [experience_tensors(experience) for experience in benchmark.train_stream]
    test = torch.cat([x for x, _ in map(experience_tensors, benchmark.test_stream)])
    return benchmark, train, test


@pytest.fixture(scope="module")
def pretrained():
    """A network that has seen digits, so that its statistics are not those of a fresh one; trainable, as it comes."""
    _, train, _ = digits()
    x, y = torch.cat([x for x, _ in train]), torch.cat([y for _, y in train])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Residual()
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for chosen in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return network.train()


def joint_ridge(network, train, test):
    """Labels of scikit-learn's regression on all samples at once, in double precision, from features in evaluation mode."""
    network = copy.deepcopy(network).eval()
    x, y = torch.cat([x for x, _ in train]), torch.cat([y for _, y in train])
    with torch.no_grad():
        h, z = (network.features(part).double().numpy() for part in (x, test))
    alpha = RIDGE * float(((h - h.mean(0)) ** 2).sum(0).mean())
    return Ridge(alpha=alpha).fit(h, np.eye(10)[y.numpy()]).predict(z).argmax(1)


class Parts(L.LightningModule):
    """A user's module that never calls the network as a whole, and validates in the middle of training."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def step(self, batch):
        return F.cross_entropy(self.network.fc(self.network.features(batch[0])), batch[1])

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        assert not any(module.training for module in self.modules())
        self.step(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


def plain_loop(network, rule, train, benchmark):
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    for x, y in train:
        with session.experience():
            for inputs, targets in zip(x.split(32), y.split(32), strict=True):
                network.train()
                with session.step(inputs, targets, optimizer):
                    F.cross_entropy(network(inputs), targets).backward()
                predict(network, inputs)  # An evaluation between two steps.


def callback(network, rule, train, benchmark):
    rule = type(rule)(**{**rule.hyperparameters, "head": "network.fc"})  # Attached to the whole LightningModule.
    plasticity = Metaplasticity(rule)
    module = Parts(network)
    for x, y in train:
        loader = DataLoader(TensorDataset(x, y), batch_size=32)
        trainer = L.Trainer(max_epochs=1, callbacks=[plasticity], val_check_interval=2, **QUIET)
        module.train()
        trainer.fit(module, loader, loader)


def wrapper(network, rule, train, benchmark):
    module = MetaplasticModule(network, rule=rule)
    for x, y in train:
        loader = DataLoader(TensorDataset(x, y), batch_size=32)
        trainer = L.Trainer(max_epochs=1, val_check_interval=2, num_sanity_val_steps=1, **QUIET)
        module.train()
        trainer.fit(module, loader, loader)


def stream(network, rule, train, benchmark):
    fit_stream(MetaplasticModule(network, rule=rule), benchmark, **{**QUIET, "batch_size": 32})
    network.train()


def avalanche(network, rule, train, benchmark):
    from avalanche.evaluation.metrics import loss_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    strategy = Naive(
        model=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
        train_mb_size=32, train_epochs=1, eval_mb_size=64, device="cpu", plugins=[MetaplasticityPlugin(rule)],
        eval_every=1, evaluator=EvaluationPlugin(loss_metrics(experience=True), loggers=[]),
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream[:1]])
    network.train()


HOSTS = (plain_loop, callback, wrapper, stream, avalanche)


@pytest.mark.parametrize("trainable", (True, False), ids=("trainable", "no gradients"))
@pytest.mark.parametrize("host", HOSTS)
def test_one_class_at_a_time_is_joint_ridge_regression_to_the_label(host, trainable, pretrained):
    benchmark, train, test = digits()
    network = copy.deepcopy(pretrained)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable or name.startswith("fc"))
    before = copy.deepcopy(network.state_dict())
    expected = joint_ridge(network, train, test)
    host(network, RecursiveReadout(ridge=RIDGE, head="fc"), train, benchmark)
    assert all(module.training for module in network.modules())
    found = predict(network, test).numpy()
    assert (found == expected).all()
    assert len(set(found)) == 10
    for name, value in network.state_dict().items():
        assert name.startswith("fc") or torch.equal(value, before[name]), name


@pytest.mark.parametrize("host", HOSTS)
def test_discriminant_analysis_is_that_of_features_in_evaluation_mode(host, pretrained):
    benchmark, train, test = digits()
    networks = [copy.deepcopy(pretrained) for _ in range(2)]
    host(networks[0], StreamingLDA(shrinkage=0.01, head="fc"), train, benchmark)
    body = networks[1].eval()
    with torch.no_grad():
        features = [(body.features(x), y) for x, y in train]
    plain_loop(body.fc, StreamingLDA(shrinkage=0.01), features, benchmark)
    with torch.no_grad():
        expected = body.fc.eval()(body.features(test))
        torch.testing.assert_close(networks[0].eval()(test), expected, atol=1e-3, rtol=1e-3)


def test_a_torchvision_backbone_in_training_mode():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(num_classes=4)
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(24) // 6
    x = torch.randn(24, 3, 32, 32, generator=generator) * (1 + y.view(-1, 1, 1, 1))
    reference = copy.deepcopy(network)
    session = Session(network, RecursiveReadout(ridge=RIDGE))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for inputs, targets in zip(x.split(6), y.split(6), strict=True):
        with session.experience(), session.step(inputs, targets, optimizer):
            F.cross_entropy(network(inputs), targets).backward()
    reference.fc = nn.Identity()
    with torch.no_grad():
        h = reference.eval()(x).double().numpy()
    alpha = RIDGE * float(((h - h.mean(0)) ** 2).sum(0).mean())
    expected = Ridge(alpha=alpha).fit(h, np.eye(4)[y.numpy()]).predict(h)
    with torch.no_grad():
        np.testing.assert_allclose(network.eval()(x).numpy(), expected, atol=1e-4)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def batch(n=8):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % 3


def step(session, x, y):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=0.1)
    with session.step(x, y, optimizer):
        F.cross_entropy(session.network(x), y).backward()


def modes(network):
    return [module.training for module in network.modules()]


def test_modes_of_its_own_are_restored_one_by_one():
    network = small()
    network[1].eval()
    session = Session(network, RecursiveReadout())
    with session.experience():
        step(session, *batch())
        assert modes(network) == [False, False, False, False, True]
    assert modes(network) == [True, True, False, True, True]


def test_a_network_in_evaluation_mode_stays_in_it():
    network = small().eval()
    session = Session(network, RecursiveReadout())
    with session.experience():
        step(session, *batch())
    assert modes(network) == [False] * 5


def test_evaluation_mode_that_the_host_asked_for_meanwhile_stays():
    network = small()
    session = Session(network, RecursiveReadout())
    with session.experience():
        step(session, *batch())
        network.eval()
    assert modes(network) == [False] * 5


@pytest.mark.parametrize("end", ("step", "close"))
def test_modes_are_restored_after_an_error(end):
    network = small()
    session = Session(network, RecursiveReadout())
    session.begin_experience()
    x, y = batch()
    if end == "step":
        with (
            pytest.raises(RuntimeError, match="lost"),
            session.step(x, y, torch.optim.SGD(network.parameters(), lr=0.1)),
        ):
            raise RuntimeError("lost")
    else:
        session.before_forward(x, y)
        assert not network[1].training
        session.close()
    assert modes(network) == [True] * 5


def test_modes_are_restored_after_an_error_in_a_trainer():
    class Failing(Parts):
        def training_step(self, batch, batch_idx):
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            if batch_idx == 1:
                raise RuntimeError("lost")
            return loss

    network, (x, y) = small(), batch()
    trainer = L.Trainer(max_epochs=1, callbacks=[Metaplasticity(RecursiveReadout())], **QUIET)
    with pytest.raises(RuntimeError, match="lost"):
        trainer.fit(Failing(network), DataLoader(TensorDataset(x, y), batch_size=4))
    assert modes(network) == [True] * 5


def test_features_that_may_learn_keep_their_mode():
    network = small()
    session = Session(network, RecursiveReadout(freeze=False))
    with session.experience():
        step(session, *batch())
        assert modes(network) == [True] * 5
    assert int(network[1].num_batches_tracked) == 1


@pytest.mark.parametrize(("layer", "trains"), ((nn.LSTM(3, 4), True), (nn.GRU(3, 4, num_layers=2, dropout=0.5), False)))
def test_a_recurrent_layer_keeps_the_mode_that_its_backward_pass_needs_on_a_gpu(layer, trains):
    """cuDNN refuses one in evaluation mode; without dropout the modes do the same."""
    network = nn.ModuleDict({"recurrent": layer, "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 2)}).train()
    frozen = Frozen(network, [network["head"]])
    frozen.hold()
    assert (layer.training, network["norm"].training) == (trains, False)
    frozen.release()
    assert layer.training
    assert network["norm"].training


def test_a_rule_that_freezes_nothing_leaves_modes_alone():
    network, (x, y) = small(), batch()
    session = Session(network, EWC())
    with session.experience([(x, y)]):
        step(session, x, y)
        assert modes(network) == [True] * 5


def test_the_weights_are_not_worked_out_in_training(monkeypatch):
    """The frozen layers are in evaluation mode then, but it is no evaluation: solving in every step would be slow."""
    network, solved = small(), []
    rule = RecursiveReadout()
    solve = rule.solve
    monkeypatch.setattr(rule, "solve", lambda *arguments: solved.append(1) or solve(*arguments))
    session = Session(network, rule)
    session.begin_experience()
    for _ in range(3):
        step(session, *batch())
    assert solved == []
    predict(network, batch()[0])
    assert solved == [1]
    step(session, *batch())
    network.eval()
    network[3](torch.zeros(2, 5))  # The head alone, as an evaluation from kept features runs it.
    assert solved == [1, 1]


class Counting(nn.Module):
    """Moves a buffer whenever it runs, in any mode."""

    def __init__(self, persistent=True, factor=1.0):
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.ones(5), persistent=persistent)

    def forward(self, x):
        self.mean.mul_(self.factor)
        return x * self.mean


class Rebinding(Counting):
    def forward(self, x):
        self.mean = self.mean + 1.0
        return x * self.mean


@pytest.mark.parametrize("module", (Counting(factor=0.9), Rebinding()))
def test_a_buffer_that_moves_below_the_head_is_an_error_and_nothing_is_learned(module):
    network = nn.Sequential(nn.Linear(6, 5), copy.deepcopy(module), nn.Linear(5, 3))
    rule = RecursiveReadout()
    session = Session(network, rule)
    session.begin_experience()
    with pytest.raises(ValueError, match=r"module '1' \((Counting|Rebinding)\) changes its buffer 'mean'"):
        step(session, *batch())
    assert list(rule.state) == []
    assert modes(network) == [True] * 4


@pytest.mark.parametrize("module", (Counting(factor=1.0), Counting(persistent=False, factor=0.9)))
def test_buffers_that_are_written_what_they_hold_or_are_no_memory_are_no_error(module):
    network = nn.Sequential(nn.Linear(6, 5), copy.deepcopy(module), nn.Linear(5, 3))
    session = Session(network, RecursiveReadout())
    with session.experience():
        step(session, *batch())
    assert session.experiences == 1


def test_a_buffer_above_the_head_may_move():
    class Above(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.after = nn.Linear(6, 5), Counting(factor=0.9)

        def forward(self, x):
            return self.after(self.head(x))

    session = Session(Above(), RecursiveReadout())
    with session.experience():
        for _ in range(2):
            step(session, *batch())
    assert session.experiences == 1


def test_normalisation_without_statistics_is_refused_before_training():
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"module '1' .* has no running statistics"):
        Session(network, RecursiveReadout()).begin_experience()


def test_a_head_that_is_replaced_between_experiences_is_the_new_one():
    network = small()
    session = Session(network, RecursiveReadout())
    with session.experience():
        step(session, *batch())
    network[3] = nn.Linear(5, 4)
    with session.experience():
        step(session, *batch())
        assert modes(network) == [False] * 4 + [True]
    assert network[3].weight[:3].abs().max() > 0
    assert modes(network) == [True] * 5


@pytest.mark.filterwarnings("ignore:CriticalPeriod learns features from")
def test_after_a_critical_period_statistics_and_other_parameters_keep_still():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    session = Session(network, CriticalPeriod(samples=8))
    with session.experience():
        step(session, *batch())
        assert network[1].training
        before = copy.deepcopy(network.state_dict())
        step(session, *batch())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight", "3.bias"}
    assert modes(network) == [True] * 5


class Elsewhere(nn.Module):
    """Keeps its mode elsewhere than in an entry of its own, as modules of TorchScript do."""

    def __init__(self):
        self.flags = {"training": True}
        super().__init__()
        del self.__dict__["training"]

    def __getattr__(self, name):
        return self.flags[name] if name == "training" else super().__getattr__(name)

    def __setattr__(self, name, value):
        if name == "training":
            self.flags[name] = value
        else:
            super().__setattr__(name, value)


def test_a_mode_need_not_be_an_entry_of_its_module():
    network = nn.Sequential(Elsewhere(), nn.Linear(5, 3))
    frozen = Frozen(network, [network[1]])
    frozen.hold()
    assert modes(network) == [False, False, True]
    assert network[0].flags == {"training": False}
    frozen.release()
    assert modes(network) == [True, True, True]

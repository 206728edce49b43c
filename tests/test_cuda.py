"""On a GPU every rule, network, stream and entry does what it does on the processor."""

from __future__ import annotations

import io

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import (
    ContinualClassifier,
    Metaplasticity,
    MetaplasticModule,
    Session,
    fit_stream,
    scenario,
    zoo,
)
from lit_meta.data import load_source
from lit_meta.data.features import extract_features
from lit_meta.data.sources import Source
from lit_meta.evaluation.audit import audit
from lit_meta.experiments import load_experiment
from lit_meta.experiments.run import run_seed
from lit_meta.networks.backbones import Backbone
from lit_meta.rules import RULES
from lit_meta.utils.paths import configs_folder
from lit_meta.zoo.golden import outputs_of
from lit_meta.zoo.layout import entry_folder
from tests.rules import drivers
from tests.rules.test_contract import from_config

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU")

# Their numbers are drawn on the device, whose generator gives others.
DRAWN_THERE = {"bgd", "ewc", "mesu", "shrink-and-perturb", "upgd"}
EXPERIMENTS = sorted(path.stem for path in (configs_folder() / "experiment").glob("*digits*.yaml"))


def on(device, data):
    return [(x.to(device), y.to(device)) for x, y in data]


def learn(session, data):
    for x, y in data:
        optimizer = drivers.optimizer_for(session.network)
        with session.experience([(x, y)]):
            for inputs, targets in zip(x.split(drivers.BATCH), y.split(drivers.BATCH), strict=True):
                with session.step(inputs, targets, optimizer):
                    F.cross_entropy(session.network(inputs), targets).backward()
    return session


@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_the_weights_of_the_processor(name, make_network, two_experiences):
    data = [(x.double(), y) for x, y in two_experiences]
    here, there = make_network().double(), make_network().double().to(DEVICE)
    memory = learn(Session(here, from_config(name)), data).rules[0].state.state_dict()
    other = learn(Session(there, from_config(name)), on(DEVICE, data)).rules[0].state.state_dict()
    assert memory.keys() == other.keys()
    for one, two in zip(here.parameters(), there.parameters(), strict=True):
        assert two.device.type == DEVICE
        assert bool(torch.isfinite(two).all())
        if name not in DRAWN_THERE:
            close = 1e-4 if name == "critical-period" else 1e-8  # It whitens patches of single precision.
            torch.testing.assert_close(one, two.cpu(), rtol=close, atol=close / 100)


@pytest.mark.parametrize(("first", "second"), ((DEVICE, "cpu"), ("cpu", DEVICE)))
@pytest.mark.parametrize("name", RULES)
def test_a_memory_goes_from_device_to_device(name, first, second, make_network, two_experiences):
    session = learn(Session(make_network().to(first), from_config(name)), on(first, two_experiences[:1]))
    file = io.BytesIO()
    torch.save((session.state_dict(), session.network.state_dict()), file)
    file.seek(0)
    memory, weights = torch.load(file, map_location="cpu", weights_only=True)
    network = make_network(seed=1).to(second)
    other = Session(network, from_config(name))
    other.load_state_dict(memory)
    network.load_state_dict(weights)
    learn(other, on(second, two_experiences[1:]))
    assert all(p.device.type == second and bool(torch.isfinite(p).all()) for p in network.parameters())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_reaches_what_it_reaches_on_the_processor(name):
    experiment = load_experiment(name)
    here, _ = run_seed(experiment, "rule", 0, accelerator="cpu")
    there, _ = run_seed(experiment, "rule", 0, accelerator=DEVICE)
    assert abs(here.average_accuracy - there.average_accuracy) < 0.06


@pytest.mark.parametrize("name", RULES)
def test_a_stream_that_stopped_goes_on_to_the_same_bits(name, tmp_path):
    class Stop(Exception):
        pass

    def stop(index, row):
        raise Stop

    def module():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
        return MetaplasticModule(network, rule=from_config(name))

    digits = scenario("split-digits", experiences=2)
    whole, resumed = module(), module()
    one = fit_stream(whole, digits, accelerator=DEVICE)
    with pytest.raises(Stop):
        fit_stream(module(), digits, accelerator=DEVICE, run_dir=tmp_path, on_experience=stop)
    two = fit_stream(resumed, digits, accelerator=DEVICE, run_dir=tmp_path, resume=True)
    assert torch.equal(one.accuracy_matrix, two.accuracy_matrix)
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first.cpu(), second.cpu())


@pytest.mark.parametrize("name", RULES)
def test_the_callback_serves_a_module_of_ones_own(name, two_experiences):
    torch.manual_seed(0)
    module = drivers.UserModule(nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4)))
    callback = Metaplasticity(from_config(name), network="body")
    for x, y in two_experiences:
        trainer = drivers.trainer(accelerator=DEVICE, callbacks=[callback])
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=drivers.BATCH))
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


@pytest.mark.parametrize("name", zoo.list(scenario="split-digits"))
def test_an_entry_gives_its_golden_outputs(name):
    golden = load_file(entry_folder(name) / "golden.safetensors")
    outputs = outputs_of(zoo.load(name).to(DEVICE), golden["inputs"].to(DEVICE))
    torch.testing.assert_close(outputs.cpu(), golden["outputs"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", zoo.list(rule="recursive-readout", scenario="split-digits"))
def test_an_entry_goes_on_learning(name):
    module = zoo.load(name, with_rule=True)
    result = fit_stream(module, scenario("split-digits", experiences=5), accelerator=DEVICE)
    assert result.average_accuracy > 0.9


def test_features_are_those_of_the_processor(tmp_path):
    def extracted(device):
        torch.manual_seed(0)
        network = Backbone("torchvision:resnet18", classes=10, size=32, pretrained=False).eval().to(device)
        return extract_features(network, few, tmp_path / device, progress=None).source().train_x

    source = load_source("digits")
    few = Source("few", source.train_x[:64], source.train_y[:64], source.test_x[:9], source.test_y[:9], source.classes)
    torch.testing.assert_close(extracted("cpu"), extracted(DEVICE).cpu(), rtol=1e-3, atol=1e-3)


def test_the_estimator_and_the_audit():
    x, y = torch.randn(60, 8), torch.arange(60) % 3
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    here = ContinualClassifier(network).fit(x.numpy(), y.numpy()).predict(x.numpy())
    there = ContinualClassifier(network, device=DEVICE).fit(x.numpy(), y.numpy()).predict(x.numpy())
    assert (here == there).mean() > 0.98
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(DEVICE)
    assert audit(classifier, scenario("split-digits"), samples=100).passed

"""First-session adaptation: what is trained, that the rest is frozen and exact afterwards, and misuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lit_meta import MetaplasticModule, RecursiveReadout, adapt_backbone, backbone, fit_stream, scenario
from lit_meta.core.errors import DivergedError
from lit_meta.data.module import experience_tensors
from lit_meta.networks.backbones.low_rank import low_rank, low_rank_layers

TRANSFORM = {"size": 8, "mean": [0.5], "std": [0.5]}


def network_of(**options):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        nn.Sequential(nn.Conv2d(12, 16, 1, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    return backbone(body, classes=10, transform=TRANSFORM, **options)


@pytest.fixture(scope="module")
def benchmark():
    return scenario("split-digits", experiences=5)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(network, before):
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_low_rank_change_starts_at_nothing_and_is_added_to_the_weights():
    network, x = network_of().features, torch.rand(2, 1, 8, 8)
    before, first = weights(network), network(x)
    with low_rank(network, 2, seed=0) as parameters:
        assert torch.equal(network(x), first)
        assert sum(p.numel() for p in parameters) == 2 * (12 + 16) + 2 * (24 + 24)
        with torch.no_grad():
            parameters[1].fill_(1.0)
        inside = network(x)
    assert not torch.equal(inside, first)
    assert torch.allclose(network(x), inside, atol=1e-6)
    assert changed(network, before) == {"1.0.weight"}
    change = (network[1][0].weight - before["1.0.weight"]).flatten(1)
    assert int(torch.linalg.matrix_rank(change, tol=1e-4)) == 1
    assert list(low_rank_layers(network)) == ["1.0", "2.2"]


@pytest.mark.parametrize("method", ("lora", "last-block"))
def test_a_transform_put_beside_the_network_is_not_its_own(method, benchmark):
    """`lit_meta.zoo.load` puts one there, which makes inputs of files."""
    plain, described = network_of(), network_of()
    described.transform = None
    for network in (plain, described):
        adapt_backbone(network, benchmark.train_stream[0], method=method, epochs=1)
    assert not changed(described, weights(plain))


@pytest.mark.parametrize(
    ("method", "expected", "parameters"),
    (
        ("lora", {"features.1.0.weight", "features.2.2.weight"}, 4 * (12 + 16 + 24 + 24)),
        ("last-block", {f"features.2.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")}, 24 * 16 * 9 + 24 + 24 * 25),
    ),
)
def test_only_what_the_method_names_is_trained_and_then_frozen(method, expected, parameters, benchmark):
    network = network_of(depths=1)
    before, digest = weights(network), network.digest
    network.train()
    adaptation = adapt_backbone(network, benchmark.train_stream[0], method=method, epochs=3, lr=3e-2)
    assert adaptation.parameters == parameters
    assert adaptation.losses[2] < adaptation.losses[0] - 0.01
    assert changed(network, before) == expected
    assert network.digest != digest
    assert network.weights.adapted == method
    assert network.training
    assert not network.features.training
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    again = network_of(depths=1)
    adapt_backbone(again, experience_tensors(benchmark.train_stream[0]), method=method, epochs=3, lr=3e-2)
    assert changed(again, weights(network)) == set()


def test_adapted_features_are_better_and_the_readout_is_exact_on_them(benchmark):
    accuracy = {}
    for name in ("adapted", "as it came"):
        network = network_of()
        module = MetaplasticModule(network, rule=RecursiveReadout(ridge=1e-3, exact=True))
        if name == "adapted":
            adapt_backbone(module, benchmark.train_stream[0], rank=8, epochs=20, lr=1e-2)
        accuracy[name] = fit_stream(module, benchmark, accelerator="cpu", enable_progress_bar=False).average_accuracy
    assert accuracy["adapted"] > accuracy["as it came"] + 0.03, accuracy
    joint, rule = copy.deepcopy(network), RecursiveReadout(ridge=1e-3, exact=True)
    everything = [experience_tensors(experience) for experience in benchmark.train_stream]
    rule.learn(joint, [(torch.cat([x for x, _ in everything]), torch.cat([y for _, y in everything]))])
    rule.write(joint)
    torch.testing.assert_close(joint.head.weight, network.head.weight, atol=1e-5, rtol=1e-3)


def test_misuse_is_refused_and_changes_nothing(benchmark):
    network, first = network_of(), benchmark.train_stream[0]
    x, y = experience_tensors(first)
    before = weights(network)
    with pytest.raises(TypeError, match=r"only a pretrained part can be adapted, and Linear has none"):
        adapt_backbone(nn.Linear(2, 2), first)
    with pytest.raises(ValueError, match=r"images of class 3 alone: cross-entropy needs two"):
        adapt_backbone(network, (x, torch.full_like(y, 3)))
    with pytest.raises(ValueError, match="features that were computed before"):
        adapt_backbone(network, (network.extract(x), y))
    with pytest.raises(ValueError, match="epochs must be a whole number"):
        adapt_backbone(network, first, epochs=0)
    with pytest.raises(ValueError, match="method must be"):
        adapt_backbone(network, first, method="full")
    plain = backbone(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        classes=10,
        transform=TRANSFORM,
    )
    with pytest.raises(ValueError, match="no Linear layer or 1 x 1 convolution"):
        adapt_backbone(plain, first)
    with pytest.raises(DivergedError, match="the weights are as before"):
        adapt_backbone(network, first, lr=1e30)
    assert changed(network, before) == set()
    assert network.weights.adapted == ""
    module = MetaplasticModule(network, rule=RecursiveReadout(ridge=1e-3))
    module.plasticity.rules[0].learn(network, [(x, y)])
    with pytest.raises(ValueError, match="has already learned on the features as they are"):
        adapt_backbone(module, first)

"""Learning without labels in a critical period, and what stays when it is over."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.core.layers import NormalizesContrast
from lit_meta.evaluation.accuracy import predict
from lit_meta.functional.patches import competitive_hebbian, contrast_normalize, whitening_matrix
from lit_meta.networks import PatchConv2d, PatchNet
from lit_meta.rules import CriticalPeriod, RecursiveReadout, critical_period
from lit_meta.rules.critical_period import draw_patches


def net(**options):
    return PatchNet((1, 8, 8), **{"filters": [6], "kernels": [3], "classes": 4, "grids": (2,), "seed": 0, **options})


def images(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def learn(network, rules, batches):
    session = Session(network, rules)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    session.begin_experience()
    for x, y in batches:
        with session.step(x, y, optimizer):
            F.cross_entropy(network.train()(x), y).backward()
    session.end_experience()
    return session


def small_rule(**options):
    return CriticalPeriod(**{"samples": 20, "patches": 500, **options})


def test_contrast_normalisation_in_the_map_is_that_of_each_patch():
    layer = PatchConv2d(2, 5, 3, contrast=0.05)
    x = torch.rand(3, 2, 6, 7)
    patches = F.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18)
    weight = layer.weight.flatten(1)
    expected = contrast_normalize(patches, 0.05) @ (weight - weight.mean(1, keepdim=True)).T + layer.bias
    torch.testing.assert_close(layer(x), expected.reshape(3, 42, 5).transpose(1, 2).reshape(3, 5, 6, 7))


def test_whitened_patches_are_uncorrelated():
    x = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)).double() @ torch.randn(4, 4).double()
    white = x @ whitening_matrix(x.T @ x / 5000, 1e-12)
    torch.testing.assert_close(white.T @ white / 5000, torch.eye(4).double(), atol=1e-6, rtol=0)


def test_plasticity_falls_with_use():
    z, start = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.2]])
    turned = [
        competitive_hebbian(z, F.normalize(start, dim=1), use * F.normalize(start, dim=1), sweeps=1)[0][0, 1]
        for use in (0.1, 1.0, 10.0, 1000.0)
    ]
    assert turned == sorted(turned, reverse=True)
    assert turned[-1] == pytest.approx(float(F.normalize(start, dim=1)[0, 1]), abs=1e-3)


def test_clusters_are_found():
    generator = torch.Generator().manual_seed(1)
    centers = F.normalize(torch.randn(3, 8, generator=generator), dim=1)
    z = 3 * centers[torch.randint(0, 3, (600,), generator=generator)] + 0.1 * torch.randn(600, 8, generator=generator)
    found, _ = competitive_hebbian(z, F.normalize(centers + 0.3, dim=1), torch.zeros(3, 8), sweeps=10)
    assert (found @ centers.T).max(0).values.min() > 0.99


def test_labels_make_no_difference_to_the_features():
    (x, y), one, two = images(), net(), net()
    learn(one, small_rule(), [(x, y)])
    learn(two, small_rule(), [(x, torch.zeros_like(y))])
    assert torch.equal(one.layers[0].weight, two.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, net().layers[0].weight)


def test_after_the_critical_period_nothing_moves():
    x, y = images()
    network = net()
    learn(network, small_rule(), [(x[:20], y[:20])])
    after = net()
    learn(after, small_rule(), [(x[:20], y[:20]), (x[20:], y[20:])])
    for name, parameter in network.layers.named_parameters():
        assert torch.equal(parameter, after.layers.get_parameter(name))


def test_layers_with_gradients_are_frozen_too():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 6, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    head = network[2].weight.detach().clone()
    session = learn(network, CriticalPeriod(samples=20), [(x[:20], y[:20])])
    features = network[0].weight.detach().clone()
    session.begin_experience()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with session.step(x[20:], y[20:], optimizer):
        F.cross_entropy(network(x[20:]), y[20:]).backward()
    assert torch.equal(network[0].weight, features)
    assert not torch.equal(network[2].weight, head)


def test_every_layer_learns_from_the_one_below_as_it_has_become():
    (x, y), network = images(), net(filters=[4, 5], kernels=[3, 3], pooling=1)
    twin = copy.deepcopy(network)
    learn(network, small_rule(), [(x, y)])
    # The first layer's filters in place beforehand: the second one learns the same from them.
    twin.layers[0].load_state_dict(network.layers[0].state_dict())
    below = twin.layers[0](x).relu()
    patches = contrast_normalize(draw_patches(twin.layers[1], below, 500, torch.Generator().manual_seed(40)), 0.01)
    assert patches.shape == (500, 36)
    assert not torch.equal(network.layers[1].weight, twin.layers[1].weight)


def test_with_the_readout_class_order_hardly_matters_and_predictions_stand_alone():
    from lit_meta.data import scenario
    from lit_meta.data.module import experience_tensors

    stream = [experience_tensors(e) for e in scenario("split-digits", class_order=range(10)).train_stream]
    tests = [experience_tensors(e) for e in scenario("split-digits", class_order=range(10)).test_stream]
    x, y = torch.cat([x for x, _ in tests]), torch.cat([y for _, y in tests])
    correct = []
    for order in ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 9, 3, 8, 1, 7, 2, 5, 6, 4]):
        network = net(classes=10, grids=(4,), filters=[24])
        learn(network, [small_rule(samples=100), RecursiveReadout()], [stream[label] for label in order])
        found = predict(network, x, batch_size=512)
        # The first class is the same, and so are the features: nothing else may depend on the order.
        correct.append((found == y).float().mean())
        assert torch.equal(found[:50], predict(network, x[:50], batch_size=1))
    assert abs(correct[0] - correct[1]) < 0.003
    assert min(correct) > 0.96


def test_the_readout_waits_for_features_that_still_learn():
    x, y = images(60)
    waiting, late = net(), net()
    batches = [(x[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)]
    rule = RecursiveReadout(ridge=1e-2, after=40)
    learn(waiting, [small_rule(samples=40), rule], batches)
    assert int(rule.state.overall["class_counts"].sum()) == 40
    late.load_state_dict(waiting.state_dict())
    learn(late, RecursiveReadout(ridge=1e-2), batches[1:])
    torch.testing.assert_close(waiting.eval()(x), late.eval()(x))


def test_features_that_move_while_the_readout_counts_are_warned_of():
    x, y = images(60)
    batches = [(x[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)]
    with pytest.warns(UserWarning, match=r"weights below the head changed after RecursiveReadout had counted samples"):
        learn(net(), [small_rule(samples=40), RecursiveReadout(ridge=1e-2)], batches)
    # No warning, which would be an error, where the features are final with the first batch.
    learn(net(), [small_rule(samples=20), RecursiveReadout(ridge=1e-2)], batches)


def test_units_of_an_expansion_are_adapted_in_parts_to_the_same_numbers(monkeypatch):
    x, y = images(20)
    networks = []
    for units in (7, 1000):
        monkeypatch.setattr(critical_period, "_UNITS_AT_ONCE", units)
        networks.append(net(expansion=50))
        learn(networks[-1], small_rule(), [(x, y)])
    for name, value in networks[0].expansion.state_dict().items():
        torch.testing.assert_close(value, networks[1].expansion.state_dict()[name])
    drive = networks[0].expansion(networks[0]._pooled(x))
    torch.testing.assert_close(
        drive.mean(0), torch.full((50,), -networks[0].expansion.drive_threshold), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(drive.std(0, unbiased=False), torch.ones(50), atol=1e-3, rtol=0)


@pytest.mark.parametrize("expansion", (None, 50))
def test_an_abandoned_step_is_undone(expansion):
    x, y = images()
    network = net(expansion=expansion)
    before = copy.deepcopy(network.state_dict())
    session = Session(network, small_rule())
    session.begin_experience()

    def lost(gradient):
        raise RuntimeError("lost in the backward pass")

    optimizer = torch.optim.SGD(network.head.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="lost"), session.step(x, y, optimizer):  # noqa: PT012
        outputs = network(x)
        outputs.register_hook(lost)
        outputs.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(not session.rules[0].state[quantity] or quantity == "samples" for quantity in session.rules[0].state)


@pytest.mark.parametrize(
    ("options", "message"),
    (({"samples": 0}, "samples must be"), ({"whitening": 0.0}, "whitening must be"), ({"head": "x"}, "no layer 'x'")),
)
def test_what_cannot_work_says_so(options, message):
    x, y = images(4)
    with pytest.raises(ValueError, match=message):
        learn(net(), CriticalPeriod(**options), [(x, y)])


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"kernels": [4]}, "kernels must be odd"),
        ({"kernels": [3, 3]}, "equal length"),
        ({"grids": (9,)}, "smaller than the grid"),
        ({"contrast": (0.0,)}, "contrast must be above 0"),
        ({"precision": "float16"}, "precision must be"),
    ),
)
def test_networks_that_cannot_be_built_say_so(options, message):
    with pytest.raises(ValueError, match=message):
        net(**options)


def test_both_signs_answer_to_a_patch_and_its_opposite():
    network = net(both_signs=True, grids=(8,))
    with torch.no_grad():
        network.layers[0].bias.zero_()
    x, _ = images(3)
    positive, negative = network.features(x).chunk(2, dim=1)
    torch.testing.assert_close(network.features(-x).chunk(2, dim=1)[0], negative)
    assert not torch.equal(positive, negative)


def test_any_layer_that_declares_its_normalisation_is_learned_as_ours_is():
    class Foreign(torch.nn.Conv2d):
        contrast = 0.05

    def weights(layer):
        network = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(6 * 64, 4))
        torch.manual_seed(0)
        learn(network, small_rule(), [images(20)])
        return layer.weight.detach()

    ours = weights(PatchConv2d(1, 6, 3, contrast=0.05))
    foreign = weights(Foreign(1, 6, 3, padding=1))
    plain = weights(torch.nn.Conv2d(1, 6, 3, padding=1))
    assert isinstance(Foreign(1, 6, 3), NormalizesContrast)
    assert not isinstance(torch.nn.Conv2d(1, 6, 3), NormalizesContrast)
    assert torch.equal(ours, foreign)
    assert not torch.allclose(foreign, plain)


@pytest.mark.parametrize(
    "layer",
    (
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ),
)
def test_layers_that_cannot_be_learned_are_refused_before_a_batch_is_seen(layer):
    first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
    session = Session(nn.Sequential(first, layer, nn.Flatten(), nn.Linear(256, 4)), CriticalPeriod())
    with pytest.raises(ValueError, match=r"CriticalPeriod learns .*'1'"):
        session.begin_experience()


def test_a_network_without_a_linear_layer_needs_a_named_head():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 6), nn.Flatten())
    with pytest.raises(ValueError, match="no Linear layer can be the head: name it"):
        Session(network, CriticalPeriod()).begin_experience()
    Session(network, CriticalPeriod(head="1")).begin_experience()


def test_random_patches_are_the_control_and_few_samples_are_warned_of():
    x, y = images(15)
    with pytest.warns(UserWarning, match="learns features from 15 samples; with fewer than 20, random patches"):
        learn(net(), small_rule(samples=15), [(x, y)])
    control = small_rule(samples=15, sweeps=0)
    network = net()
    learn(network, control, [(x, y)])
    (history,) = control.state["history"].values()
    (direction,) = control.state["direction"].values()
    assert not history.any()
    # Each is one of the patches drawn, whitened.
    assert torch.allclose(direction.norm(dim=1), torch.ones(6), atol=1e-5)
    assert not torch.equal(network.layers[0].weight, net().layers[0].weight)

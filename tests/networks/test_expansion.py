"""A random expansion below the head: directions stay, excitability follows the drive; mirrored features; spikes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.cost.operations import OperationCounter
from lit_meta.networks import PatchNet, RandomExpansion, SpikingPatchNet
from lit_meta.rules import CriticalPeriod, RecursiveReadout


def images(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def learn(network, batches, samples=40):
    session = Session(network, [CriticalPeriod(samples=samples, patches=500), RecursiveReadout(ridge=1e-3)])
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    with session.experience():
        for x, y in batches:
            with session.step(x, y, optimizer):
                F.cross_entropy(network.train()(x), y).backward()
    return session


def net(**options):
    return PatchNet(
        (1, 8, 8),
        **{"filters": [6], "kernels": [3], "classes": 4, "grids": (2,), "expansion": 30, "seed": 0, **options},
    )


def test_the_drive_is_standardised_and_the_directions_stay():
    network, (x, y) = net(expansion_threshold=0.5), images()
    before = network.expansion.weight.clone()
    learn(network, [(x, y)])
    drive = network.expansion(network.eval()._pooled(x)) + 0.5
    torch.testing.assert_close(drive.mean(0), torch.zeros(30), atol=1e-4, rtol=0)
    torch.testing.assert_close(drive.std(0, unbiased=False), torch.ones(30), atol=1e-4, rtol=0)
    torch.testing.assert_close(F.normalize(network.expansion.weight, dim=1), before)


def test_over_several_batches_the_statistics_are_those_of_all_samples():
    (x, y), one, two = images(), net(), net()
    for network in (one, two):  # The patch layer is left alone, so that the expansion sees the same in both.
        network.layers.requires_grad_(False)
    session = Session(one, CriticalPeriod(samples=40, patches=500))
    learn(two, [(x, y)])
    one.layers.load_state_dict(two.layers.state_dict())
    h = one._pooled(x)
    rule = session.rules[0]
    for quantity in ("samples", "patch_count", "drive_sum", "drive_square"):
        rule.state[quantity] = {}
    for part in h.split(10):
        rule._adapt("*expansion", one.expansion, part, one.expansion.drive_threshold)
    torch.testing.assert_close(one.expansion.weight, two.expansion.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.expansion.bias, two.expansion.bias, atol=1e-4, rtol=1e-4)


def test_a_unit_whose_drive_never_varies_stays_finite():
    network, (x, y) = net(), images()
    learn(network, [(torch.full_like(x, 0.5) + 1e-3 * x, y)])
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    layer = RandomExpansion(3, 5)
    rule = CriticalPeriod(samples=10)
    rule.state["patch_count"], rule.state["drive_sum"], rule.state["drive_square"] = {}, {}, {}
    rule._adapt("*layer", layer, torch.ones(10, 3), 0.25)
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.full((1, 5), -0.25), atol=1e-5, rtol=0)


def test_the_expansion_separates_what_the_features_below_do_not():
    """Two blobs in the same place in all classes but for their parity: no linear function of the averages tells them."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    accuracies = []
    for layer in (torch.nn.Identity(), torch.nn.Sequential(RandomExpansion(2, 200), torch.nn.ReLU())):
        network = torch.nn.Sequential(layer, torch.nn.Linear(2 if isinstance(layer, torch.nn.Identity) else 200, 2))
        session = Session(network, RecursiveReadout(ridge=1e-4))
        optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)
        with session.experience(), session.step(x[:300], y[:300], optimizer):
            F.cross_entropy(network(x[:300]), y[:300]).backward()
        accuracies.append(float((network.eval()(x[300:]).argmax(1) == y[300:]).float().mean()))
    assert accuracies[0] < 0.7 < 0.93 < accuracies[1]


def test_mirrored_features_are_those_of_an_image_and_its_mirror_image():
    network, (x, _) = net(mirror=True, expansion=None), images()
    plain = net(expansion=None)
    torch.testing.assert_close(network.features(x), network.features(x.flip(-1)))
    torch.testing.assert_close(network.features(x), (plain.features(x) + plain.features(x.flip(-1))) / 2)


def test_in_half_precision_the_expansion_is_the_same_within_its_digits():
    layer = RandomExpansion(50, 20, precision="bfloat16")
    x = torch.rand(5, 50)
    assert layer(x).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x).float(), F.linear(x, layer.weight, layer.bias), atol=0.02, rtol=0.02)


def test_spikes_pass_from_the_patches_through_the_expansion_to_the_head():
    network = SpikingPatchNet(
        (1, 5, 5), filters=3, kernel=3, classes=2, grid=2, steps=7, threshold=0.7, expansion=6, seed=0
    )
    with torch.no_grad():
        network.layers[0].bias.fill_(0.3)
    network.record_spikes = True
    x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rates = network.features(x)
        current = network.layers[0](x)
    below, above = torch.zeros_like(current), torch.zeros(2, 6)
    fired_below, fired_above = torch.zeros_like(current), torch.zeros(2, 6)
    total, counts = torch.zeros(2), torch.zeros(2, 6)
    for _ in range(7):
        below = 0.9 * below * (1 - fired_below) + current
        fired_below = (below > 0.7).float()
        total += fired_below.sum((1, 2, 3))
        drive = network.expansion(F.adaptive_avg_pool2d(fired_below, 2).flatten(1)).detach()
        above = 0.9 * above * (1 - fired_above) + drive
        fired_above = (above > 0.7).float()
        counts += fired_above
    assert counts.sum() > 0
    torch.testing.assert_close(rates, counts / 7)
    assert torch.equal(network.spike_counts["expansion"], total)
    assert torch.equal(network.spike_counts["head"], counts.sum(1))


@pytest.mark.parametrize(("units", "error"), ((0, ValueError), (2.5, TypeError)))
def test_an_expansion_needs_units(units, error):
    with pytest.raises(error, match="expansion"):
        net(expansion=units)


def test_in_the_critical_period_a_mirrored_network_learns_before_it_is_used():
    network, (x, y) = net(mirror=True), images()
    seen = []
    network.expansion.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0].clone()))
    learn(network, [(x, y)])
    network.eval()(x)
    torch.testing.assert_close(seen[0], seen[-1])


@pytest.mark.parametrize("expansion", (None, 6))
def test_the_ledger_counts_the_spikes_and_not_the_averages_that_layers_are_given(expansion):
    network = SpikingPatchNet((1, 5, 5), filters=3, kernel=3, classes=2, grid=2, steps=7, expansion=expansion, seed=0)
    with torch.no_grad():
        network.layers[0].bias.fill_(0.8)
    x = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    counter = OperationCounter(network, local=False)
    counter.start()
    network(x)
    counter.stop()
    counter.close()
    assert not network.record_spikes
    network.record_spikes = True
    network(x)
    fan_out = {"expansion": 6, "head": 2}
    expected = sum(int(spikes.sum()) * fan_out[name] for name, spikes in network.spike_counts.items())
    cost = counter.cost()
    assert cost.synaptic_operations == expected > 0
    assert cost.analog_macs == 4 * 25 * 9 * 3
    assert cost.lif_updates == 4 * 7 * (25 * 3 + (expansion or 0))


def test_roots_are_taken_of_the_averages():
    x, _ = images()
    torch.testing.assert_close(net(root=True, expansion=None).features(x), net(expansion=None).features(x).sqrt())


def test_parallel_layers_all_look_at_the_image():
    x, y = images()
    sizes = {"filters": [6, 4], "kernels": [3, 5], "expansion": None}
    network = net(parallel=True, **sizes)
    learn(network, [(x, y)])
    alone = []
    for filters, kernel in ((6, 3), (4, 5)):
        one = net(filters=[filters], kernels=[kernel], expansion=None)
        one.layers[0].load_state_dict(network.layers[len(alone)].state_dict())
        alone.append(one.features(x))
    torch.testing.assert_close(network.eval().features(x), torch.cat(alone, dim=1))
    assert network.head.in_features == (6 + 4) * 4
    assert net(**sizes).layers[1].in_channels == 6

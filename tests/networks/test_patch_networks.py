"""Spiking patch features: spikes as the membrane equation gives them, one sample at a time."""

from __future__ import annotations

import pytest
import torch

from lit_meta import CriticalPeriod, Session
from lit_meta.networks import SpikingPatchNet


def test_rates_are_those_of_each_membrane_alone():
    network = SpikingPatchNet((1, 5, 5), filters=3, kernel=3, classes=2, grid=5, steps=12, threshold=0.7, seed=0)
    with torch.no_grad():
        network.layers[0].bias.fill_(0.3)
        x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
        currents = network.layers[0](x).flatten().tolist()
        network.record_spikes = True
        rates = network.features(x)
    expected = []
    for current in currents:
        potential = fired = count = 0.0
        for _ in range(12):
            potential = 0.9 * potential * (1 - fired) + current
            fired = float(potential > 0.7)
            count += fired
        expected.append(count)
    expected = torch.tensor(expected).reshape(2, -1)
    assert len(expected.unique()) > 3
    torch.testing.assert_close(rates, expected / 12)
    assert torch.equal(network.spike_counts["head"], expected.sum(1))


def test_layers_side_by_side_fire_as_each_alone():
    sizes = ((3, 3), (2, 5))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"classes": 2, "grid": 2, "steps": 12, "threshold": 0.5}
    both = SpikingPatchNet((1, 8, 8), filters=[3, 2], kernel=[3, 5], seed=0, **options)
    rates, counts = [], []
    with torch.no_grad():
        both.record_spikes = True
        together = both.features(x)
        for layer, (filters, kernel) in zip(both.layers, sizes, strict=True):
            alone = SpikingPatchNet((1, 8, 8), filters=filters, kernel=kernel, **options)
            alone.layers[0].load_state_dict(layer.state_dict())
            alone.record_spikes = True
            rates.append(alone.features(x))
            counts.append(alone.spike_counts["head"])
    assert all(0.05 < float(part.mean()) < 0.95 for part in rates), "silent or saturated neurons would prove nothing"
    assert torch.equal(together, torch.cat(rates, dim=1))
    assert torch.equal(both.spike_counts["head"], counts[0] + counts[1])


def test_a_picture_shown_as_events_at_every_step_fires_as_the_picture():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"filters": [3, 2], "kernel": [3, 5], "classes": 2, "grid": 2, "steps": 7, "threshold": 0.5, "seed": 0}
    picture, events = SpikingPatchNet((1, 8, 8), **options), SpikingPatchNet((1, 8, 8), **options, encoding="spikes")
    rates = picture.features(x)
    assert 0.05 < float(rates.mean()) < 0.95
    assert torch.equal(rates, events.features(x.unsqueeze(1).expand(-1, 7, -1, -1, -1)))
    with pytest.raises(ValueError, match="expected a batch of samples of 448 values"):
        events(x)


def test_an_event_leaves_a_trace():
    options = {"filters": 4, "kernel": 3, "classes": 2, "grid": 2, "steps": 5, "threshold": 0.3, "seed": 0}
    network = SpikingPatchNet((1, 6, 6), **options, encoding="spikes", trace=0.5)
    plain = SpikingPatchNet((1, 6, 6), **options, encoding="spikes")
    events = (torch.rand(2, 5, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    traces, now = [], torch.zeros(2, 1, 6, 6)
    for step in range(5):
        now = torch.where(events[:, step] > 0, events[:, step], 0.5 * now)
        traces.append(now)
    assert torch.equal(network.features(events), plain.features(torch.stack(traces, 1)))
    assert not torch.equal(network.features(events), plain.features(events))


def test_a_critical_period_learns_patches_of_the_traces():
    network = SpikingPatchNet(
        (1, 6, 6), filters=4, kernel=3, classes=2, grid=2, steps=5, seed=0, encoding="spikes", trace=0.5
    )
    before = network.layers[0].weight.clone()
    session = Session(network, CriticalPeriod(samples=40, patches=100))
    events = (torch.rand(40, 5, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    labels = torch.arange(40) % 2
    optimizer = torch.optim.SGD(network.head.parameters(), lr=0.1)
    with session.experience([(events, labels)]), session.step(events, labels, optimizer):
        torch.nn.functional.cross_entropy(network(events), labels).backward()
    assert not torch.equal(network.layers[0].weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"kernel": 4}, "kernel must be odd"),
        ({"kernel": [3, 5]}, "filters and kernel of equal length"),
        ({"decay": 1.5}, "decay must be"),
        ({"encoding": "bernoulli"}, "encoding must be one of"),
        ({"trace": 0.5}, "acts on encoding='spikes' only"),
        ({"encoding": "spikes", "trace": 1.5}, "trace must be"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"grid": 9}, "smaller than the grid"),
    ),
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SpikingPatchNet((1, 8, 8), **{"filters": 2, "kernel": 3, "classes": 2, **options})

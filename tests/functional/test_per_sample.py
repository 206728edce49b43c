"""Per-sample gradients of every kind of network against a plain loop over the samples."""

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lit_meta.functional._path_choice as choice
from lit_meta.functional import diagonal_fisher, gradient_power_sums, output_sensitivity
from tests.functional.per_sample_networks import (
    CLASSES,
    NETWORKS,
    Last,
    Spiking,
    Surrogate,
    WithSpikes,
    assert_close,
    build,
    inputs,
    looped,
    rows_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def way_of(network):
    """The only way that was remembered for a network."""
    (way,) = choice._ways[network].values()
    return way.path


@pytest.mark.parametrize("kind", ("random", "blank"))
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_loop_of_backward_passes(name, kind):
    network = build(name)
    x, y = inputs(kind), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(batch):
        return F.cross_entropy(network(batch["x"]), batch["y"])

    def alone(row):
        if isinstance(network, Spiking):
            network.memory["v"] = 0.0
        return loss(row)

    batch = {"x": x, "y": y}
    right = looped(alone, rows_of(batch), network)
    if isinstance(network, Spiking):
        network.memory["v"] = 0.0
    assert_close(gradient_power_sums(loss, batch, network), right)
    fisher = diagonal_fisher(network, x, y)
    assert_close({name: len(x) * value for name, value in fisher.items()}, right)


@pytest.mark.parametrize(
    ("name", "way"),
    (
        ("LSTM, batch_first=False", choice.vmap_sums),
        ("LSTM, bidirectional", choice.vmap_sums),
        ("LSTM with projections", choice.vmap_sums),
        ("cells", choice.vmap_sums),
        ("transformer, time first", choice.vmap_sums),
        ("convolution and norms", choice.vmap_sums),
        ("two uses of a layer", choice.vmap_sums),
        ("surrogate, reset outside", choice.LayerPath),
        ("spiking convolution", choice.LayerPath),
        ("time first, with spikes", choice.LayerPath),
        ("recurrent behind spikes", choice.loop_sums),
        ("branching", choice.loop_sums),
    ),
)
def test_the_fastest_way_that_holds_is_taken(name, way):
    network = build(name)
    diagonal_fisher(network, inputs("random"), torch.zeros(6, dtype=torch.long))
    path = way_of(network)
    assert path is way or type(path) is way


def test_memory_of_a_network_is_left_as_it_was():
    torch.manual_seed(0)
    network = Spiking(False).double()
    diagonal_fisher(network, inputs("random"), torch.zeros(6, dtype=torch.long))
    assert network.memory == {"v": 0.0}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_stay_in_their_places(name):
    network = build(name)
    before = {name: (p, p.detach().clone()) for name, p in network.named_parameters(remove_duplicate=False)}
    diagonal_fisher(network, inputs("random"), torch.zeros(6, dtype=torch.long))
    after = dict(network.named_parameters(remove_duplicate=False))
    assert after.keys() == before.keys()
    assert all(after[name] is p and torch.equal(p, values) for name, (p, values) in before.items())
    assert all(p.grad is None for p in network.parameters())


def test_a_memory_of_an_earlier_batch_is_refused():
    torch.manual_seed(0)
    network = Spiking(False).double()
    x, y = inputs("random"), torch.zeros(6, dtype=torch.long)
    network(x)
    before = network.memory["v"]
    with pytest.raises(ValueError, match="layers that keep a state have to be reset before each batch"):
        diagonal_fisher(network, x, y)
    with pytest.raises(ValueError, match=r"keeps a state \(memory\) from an earlier batch.*reset it"):
        gradient_power_sums(lambda batch: F.cross_entropy(network(batch).mean(dim=0), y[0]), x, network)
    assert network.memory["v"] is before


def test_a_memory_that_the_network_resets_is_no_hindrance():
    torch.manual_seed(0)
    network = Spiking(True).double()
    x, y = inputs("random"), torch.zeros(6, dtype=torch.long)
    fresh = diagonal_fisher(network, x, y)
    network(x)
    assert_close(diagonal_fisher(network, x, y), fresh)


def test_a_failed_try_leaves_a_process_that_trains():
    torch.manual_seed(0)
    network = WithSpikes().double()
    twin = copy.deepcopy(network)
    x, y = inputs("random"), torch.tensor([0, 1, 2, 0, 1, 2])
    diagonal_fisher(network, x, y)
    trained = (network, twin, copy.deepcopy(network))
    for each in trained:
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(each(x), y).backward()
            optimizer.step()
    for parameters in zip(*(each.parameters() for each in trained), strict=True):
        assert all(torch.equal(parameters[0], other) for other in parameters[1:])
    doubled = torch.func.vmap(lambda value: value * 2)(x)
    assert torch.equal(doubled, x * 2)


def test_buffers_and_counters_are_left_as_they_were():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, CLASSES)
            self.register_buffer("calls", torch.zeros(()))
            self.count, self.outputs = 0, []

        def forward(self, x):
            self.calls += 1
            self.count += 1
            self.outputs.append(self.layer(x))
            self.latest = x
            return self.outputs[-1]

    network = Counting()
    diagonal_fisher(network, torch.randn(5, 4), torch.zeros(5, dtype=torch.long))
    assert (float(network.calls), network.count, network.outputs) == (0.0, 0, [])
    assert not hasattr(network, "latest")


def test_modules_around_the_network_are_left_as_they_were():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.frozen = Last(nn.LSTM, True).double(), nn.Sequential(nn.GRU(4, 4), nn.Dropout(0.5)).double()
            self.spikes, self.loop = [], {}
            self.loop["itself"] = self.loop

        def training_step(self, batch):
            assert not self.frozen[1].training
            self.total = getattr(self, "total", 0.0) + batch["x"].mean()
            self.spikes.append(Surrogate.apply(self.net(batch["x"])))
            return F.cross_entropy(self.net(batch["x"] + 0.1 * self.frozen[0](batch["x"])[0]), batch["y"])

    torch.manual_seed(0)
    owner = Owner()
    batch = {"x": inputs("random"), "y": torch.tensor([0, 1, 2, 0, 1, 2])}
    owner.frozen[1].train()
    sums = gradient_power_sums(owner.training_step, batch, owner.net, owner=owner)
    assert owner.spikes == []
    assert not hasattr(owner, "total")
    assert owner.loop["itself"] is owner.loop
    assert owner.frozen[1].training
    owner.eval()
    assert_close(sums, looped(owner.training_step, rows_of(batch), owner.net))


def test_blank_samples_do_not_mislead_the_choice():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.head(self.layer(x) @ self.layer.weight)

    torch.manual_seed(0)
    network = Outside()
    x, y = torch.randn(8, 4), torch.arange(8) % CLASSES
    x[:6] = 0.0
    expected = looped(lambda row: F.cross_entropy(network(row[0]), row[1]), rows_of((x, y)), network)
    for part in (slice(0, 2), slice(0, 8)):  # a first batch of blank samples, then all
        sums = diagonal_fisher(network, x[part], y[part])
    assert_close({name: 8 * value for name, value in sums.items()}, expected)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "branching"])
def test_single_precision_chooses_the_same_way(name):
    network, single = build(name), build(name).float()
    x, y = inputs("random"), torch.tensor([0, 1, 2, 0, 1, 2])
    right, got = diagonal_fisher(network, x, y), diagonal_fisher(single, x.float(), y)
    way, single_way = way_of(network), way_of(single)
    assert single_way is way or type(single_way) is type(way)
    largest = max(float(value.norm()) for value in right.values())
    for name, value in right.items():
        assert float((got[name] - value).norm()) < 1e-4 * float(value.norm()) + 1e-9 * largest


def test_the_choice_is_made_once(monkeypatch):
    probes = []
    probe = choice._probe
    monkeypatch.setattr(choice, "_probe", lambda *a: probes.append(a) or probe(*a))
    network = nn.Linear(4, CLASSES)
    for _ in range(3):
        diagonal_fisher(network, torch.randn(5, 4), torch.zeros(5, dtype=torch.long))
    assert len(probes) == 1
    output_sensitivity(network, torch.randn(5, 4))
    assert len(probes) == 2


def weighted(network, batch):
    x, y = batch
    return F.cross_entropy(network(x), y, weight=torch.tensor([1.0, 2.0, 5.0]).to(x))


def ignoring(network, batch):
    x, y = batch
    logits = network(x).unsqueeze(1).expand(-1, 4, -1)
    tokens = y[:, None].repeat(1, 4)
    tokens[:, 1:] = torch.where(torch.arange(3) < y[:, None], tokens[:, 1:], -100)
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def regularized(network, batch):
    x, y = batch
    return F.cross_entropy(network(x), y) + 0.1 * sum(p.square().sum() for p in network.parameters())


def summed(network, batch):
    x, y = batch
    return F.cross_entropy(network(x), y, reduction="sum")


@pytest.mark.parametrize("loss", (weighted, ignoring, regularized, summed))
@pytest.mark.parametrize(
    "make",
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, CLASSES)), lambda: Last(nn.GRU, True), lambda: Spiking(True)),
)
def test_a_loss_that_is_no_mean_over_samples_is_taken_sample_by_sample(loss, make):
    torch.manual_seed(0)
    network = make().double()
    # The two samples that the choice is made on may be of one class, and one weight.
    x, y = inputs("random", 9), torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 2])
    right = looped(lambda row: loss(network, row), rows_of((x, y)), network)
    assert_close(gradient_power_sums(lambda batch: loss(network, batch), (x, y), network), right)


@pytest.mark.parametrize("chunk", (1, 4, None))
@pytest.mark.parametrize("power", (1, 2))
def test_chunks_powers_names_and_parts(chunk, power):
    torch.manual_seed(0)
    body, head = nn.Linear(4, 5), nn.Linear(5, CLASSES)
    batch = {"x": torch.randn(7, 4), "more": [(torch.arange(7) % CLASSES, "note", None, torch.tensor(2.0))]}

    def loss(batch):
        targets, note, _, scale = batch["more"][0]
        assert note == "note"
        return F.cross_entropy(head(torch.tanh(body(batch["x"]))), targets) * scale

    pairs = zip(batch["x"].split(1), batch["more"][0][0].split(1), strict=True)
    rows = [{"x": x, "more": [(y, "note", None, torch.tensor(2.0))]} for x, y in pairs]
    right = looped(loss, rows, body, power)
    got = gradient_power_sums(loss, batch, body, power=power, chunk_size=chunk, names=["weight"])
    assert_close(got, {"weight": right["weight"]})


def test_file_names_go_with_their_samples():
    network = nn.Linear(2, 1, bias=False)
    batch = (torch.eye(2), ["three", "five"])

    def loss(batch):
        scale = torch.tensor([{"three": 3.0, "five": 5.0}[name] for name in batch[1]])
        return (network(batch[0])[:, 0] * scale).mean()

    assert torch.equal(gradient_power_sums(loss, batch, network)["weight"], torch.tensor([[9.0, 25.0]]))


def test_wrong_use_is_refused():
    network = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"first dimensions \[2, 3\]"):
        gradient_power_sums(lambda b: network(b[0]).mean(), (torch.ones(2, 2), torch.ones(3)), network)
    with pytest.raises(ValueError, match="expected a batch of tensors"):
        gradient_power_sums(lambda b: network(b).mean(), "images", network)
    with pytest.raises(ValueError, match="one floating-point number"):
        gradient_power_sums(lambda b: network(b).expand(-1, 2), torch.ones(3, 2), network)
    with pytest.raises(ValueError, match="need a tensor to differentiate, got NoneType"):
        gradient_power_sums(lambda b: None, torch.ones(3, 2), network)
    with pytest.raises(ValueError, match="chunk_size"):
        gradient_power_sums(lambda b: network(b).mean(), torch.ones(3, 2), network, chunk_size=0)


SHAPED = {
    name: build(name) for name in ("LSTM, batch_first=False", "time first, with spikes", "surrogate, reset outside")
}


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(sorted(SHAPED)), count=st.integers(1, 6), steps=st.integers(1, 6), seed=st.integers(0, 99))
def test_any_number_of_samples_and_steps(name, count, steps, seed):
    """The way is remembered from other shapes; samples, steps and features may be equally many."""
    network = SHAPED[name]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, steps, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (count,), generator=generator)
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for row in rows_of((x, y)):
        if isinstance(network, Spiking):
            network.memory["v"] = 0.0
        gradients = torch.autograd.grad(F.cross_entropy(network(row[0]), row[1]), list(network.parameters()))
        for total, gradient in zip(expected.values(), gradients, strict=True):
            total += gradient.square()
    if isinstance(network, Spiking):
        network.memory["v"] = 0.0
    got = diagonal_fisher(network, x, y)
    for name, value in expected.items():
        torch.testing.assert_close(count * got[name], value, rtol=1e-5, atol=1e-12)


def test_neither_the_result_nor_what_is_drawn_later_depends_on_when_a_path_was_chosen():
    def draw():
        return random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002 - the global generators are meant.

    def noisy(network):
        return lambda batch: network(batch).square().mean() * (1 + draw())

    def measured(*, chosen_before):
        torch.manual_seed(0)
        network, batch = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
        if chosen_before:
            gradient_power_sums(noisy(network), batch, network)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        sums = gradient_power_sums(noisy(network), batch, network)
        return sums, draw()

    (now, drawn), (later, drawn_later) = measured(chosen_before=False), measured(chosen_before=True)
    assert drawn == drawn_later
    for name, values in now.items():
        assert torch.equal(values, later[name])

"""Per-sample gradients of every kind of network against a plain loop over the samples."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lit_meta.functional.per_sample as per_sample
from lit_meta.functional import diagonal_fisher, gradient_power_sums, output_sensitivity

CLASSES = 3


def looped(function, rows, network, power=2):
    """Σ |g|^power by plain backward passes, each from a fresh copy of the network's state."""
    network.eval()
    parameters = dict(network.named_parameters())
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in rows:
        network.zero_grad()
        function(row).backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                totals[name] += parameter.grad.abs() ** power
    network.zero_grad()
    return totals


def rows_of(batch):
    if isinstance(batch, torch.Tensor):
        return list(batch.split(1))
    if isinstance(batch, dict):
        return [dict(zip(batch, row, strict=True)) for row in zip(*map(rows_of, batch.values()), strict=True)]
    return list(zip(*map(rows_of, batch), strict=True))


def assert_close(got, expected):
    assert got.keys() == expected.keys()
    assert any(bool(value.any()) for value in expected.values())
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()) + 1e-12 * largest)


def way_of(network):
    """The only way that was remembered for a network."""
    (way,) = per_sample._ways[network].values()
    return way.path


class Last(nn.Module):
    """A recurrent layer and a head on the last step."""

    def __init__(self, kind, batch_first, **options):
        super().__init__()
        self.core = kind(4, 5, batch_first=batch_first, **options)
        self.head = nn.Linear(self.core.hidden_size * (2 if self.core.bidirectional else 1), CLASSES)

    def forward(self, x):
        if self.core.batch_first:
            return self.head(self.core(x)[0][:, -1])
        return self.head(self.core(x.transpose(0, 1))[0][-1])


class Surrogate(torch.autograd.Function):
    """A spike with the derivative of a sigmoid, without a rule for vmap."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient * torch.sigmoid(x) * (1 - torch.sigmoid(x))


class Spiking(nn.Module):
    """Neurons that keep their potential between calls; reset by whoever trains them, or at the start (`resets`)."""

    def __init__(self, resets):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.resets = resets
        self.memory = {"v": 0.0}

    def forward(self, x):
        if self.resets:
            self.memory["v"] = 0.0
        total = 0.0
        for step in range(3):
            self.memory["v"] = 0.8 * self.memory["v"] + self.first(x.flatten(1)[:, :4]) * (step + 1)
            total = total + self.last(Surrogate.apply(self.memory["v"] - 0.3))
        return total


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(torch.tanh(self.embedding(x).mean(dim=1)))


class Transformer(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first)
        self.batch_first = batch_first
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        if self.batch_first:
            return self.head(self.encoder(x).mean(dim=1))
        return self.head(self.encoder(x.transpose(0, 1)).mean(dim=0))


class Branching(nn.Module):
    """A weight that is used or not, by what a sample says; samples see each other in a batch."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, CLASSES), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = x.flatten(1)[:, :4]
        return self.first(x) if float(x.sum()) > 0 else self.second(x)


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.GroupNorm(2, 4),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.LayerNorm(24),
        nn.Linear(24, CLASSES),
    )


NETWORKS = {
    **{
        f"{kind.__name__}, batch_first={first}": lambda kind=kind, first=first: Last(kind, first)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for first in (True, False)
    },
    "LSTM, bidirectional": lambda: Last(nn.LSTM, True, num_layers=2, bidirectional=True, dropout=0.5),
    "surrogate, resets itself": lambda: Spiking(True),
    "surrogate, reset outside": lambda: Spiking(False),
    "transformer": Transformer,
    "transformer, time first": lambda: Transformer(False),
    "branching": Branching,
    "convolution and norms": convolutional,
    "two uses of a layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 6), *[nn.Linear(6, 6)] * 2, nn.Tanh()),
}


def inputs(kind, count=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, 4, generator=generator)
    return torch.zeros_like(x) if kind == "blank" else x


@pytest.mark.parametrize("kind", ("random", "blank"))
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_loop_of_backward_passes(name, kind):
    torch.manual_seed(0)
    network = NETWORKS[name]()
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


def test_memory_of_a_network_is_left_as_it_was():
    torch.manual_seed(0)
    network = Spiking(False)
    diagonal_fisher(network, inputs("random"), torch.zeros(6, dtype=torch.long))
    assert network.memory == {"v": 0.0}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_stay_in_their_places(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    before = {name: (p, p.detach().clone()) for name, p in network.named_parameters(remove_duplicate=False)}
    diagonal_fisher(network, inputs("random"), torch.zeros(6, dtype=torch.long))
    after = dict(network.named_parameters(remove_duplicate=False))
    assert after.keys() == before.keys()
    assert all(after[name] is p and torch.equal(p, values) for name, (p, values) in before.items())
    assert all(p.grad is None for p in network.parameters())


def test_a_memory_of_an_earlier_batch_is_refused():
    torch.manual_seed(0)
    network = Spiking(False)
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
    network = Spiking(True)
    x, y = inputs("random"), torch.zeros(6, dtype=torch.long)
    fresh = diagonal_fisher(network, x, y)
    network(x)
    assert_close(diagonal_fisher(network, x, y), fresh)


def test_a_failed_try_leaves_a_process_that_trains():
    torch.manual_seed(0)
    network = Last(nn.LSTM, True)
    twin = copy.deepcopy(network)
    x, y = inputs("random"), torch.tensor([0, 1, 2, 0, 1, 2])
    diagonal_fisher(network, x, y)
    assert way_of(network) is not per_sample.vmap_sums
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


def test_the_choice_is_made_once(monkeypatch):
    probes = []
    probe = per_sample._probe
    monkeypatch.setattr(per_sample, "_probe", lambda *a: probes.append(a) or probe(*a))
    network = nn.Linear(4, CLASSES)
    for _ in range(3):
        diagonal_fisher(network, torch.randn(5, 4), torch.zeros(5, dtype=torch.long))
    assert len(probes) == 1
    output_sensitivity(network, torch.randn(5, 4))
    assert len(probes) == 2


def weighted(network, batch):
    x, y = batch
    return F.cross_entropy(network(x), y, weight=torch.tensor([1.0, 2.0, 5.0]))


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
    "make", (lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, CLASSES)), lambda: Last(nn.GRU, True))
)
def test_a_loss_that_is_no_mean_over_samples_is_taken_sample_by_sample(loss, make):
    torch.manual_seed(0)
    network = make()
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

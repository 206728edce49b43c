"""Small networks of every kind that per-sample gradients are hard to get of, and the plain loop they must equal."""

import torch
from torch import nn

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


class Last(nn.Module):
    """A recurrent layer and a head on the last step."""

    def __init__(self, kind, batch_first, **options):
        super().__init__()
        self.core = kind(4, 5, batch_first=batch_first, **options)
        width = self.core.proj_size or self.core.hidden_size
        self.head = nn.Linear(width * (2 if self.core.bidirectional else 1), CLASSES)

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


class WithSpikes(nn.Module):
    """A recurrent layer behind spikes, of which neither `torch.func` nor its own gradients can be had alone."""

    def __init__(self):
        super().__init__()
        self.encoder, self.core, self.head = nn.Linear(4, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.head(self.core(Surrogate.apply(self.encoder(x)))[0][:, -1])


class TimeFirst(nn.Module):
    """Layers on (time x samples, features) and on (time, samples, features), spikes between them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = x.transpose(0, 1)
        steps, samples = x.shape[:2]
        x = Surrogate.apply(self.first(x.flatten(0, 1))).unflatten(0, (steps, samples))
        return self.last(Surrogate.apply(self.second(x))).mean(dim=0)


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.lstm, self.rnn = nn.GRUCell(4, 5), nn.LSTMCell(5, 4), nn.RNNCell(4, CLASSES, nonlinearity="relu")

    def forward(self, x):
        a, b, c = None, None, None
        for step in x.unbind(1):
            a = self.gru(step, a)
            b = self.lstm(a, b)
            c = self.rnn(b[0], c)
        return c


class SpikingConvolution(nn.Module):
    """Several uses of a convolution, whose weight is shared with another, and norms of two kinds."""

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.again.weight = self.conv.weight
        self.norms, self.head = nn.Sequential(nn.GroupNorm(1, 1), nn.BatchNorm2d(1)), nn.Linear(20, CLASSES)

    def forward(self, x):
        x = x.unsqueeze(1)
        for step in range(3):
            x = Surrogate.apply(self.norms(self.conv(x))) + self.again(x) * step
        return self.head(x.flatten(1))


NETWORKS = {
    **{
        f"{kind.__name__}, batch_first={first}": lambda kind=kind, first=first: Last(kind, first)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for first in (True, False)
    },
    "LSTM, bidirectional": lambda: Last(nn.LSTM, True, num_layers=2, bidirectional=True, dropout=0.5),
    "LSTM with projections": lambda: Last(nn.LSTM, False, proj_size=2, bias=False),
    "RNN with rectifiers": lambda: Last(nn.RNN, False, num_layers=2, nonlinearity="relu"),
    "cells": Cells,
    "recurrent behind spikes": WithSpikes,
    "time first, with spikes": TimeFirst,
    "spiking convolution": lambda: SpikingConvolution(),
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
    x = torch.randn(count, 5, 4, generator=generator, dtype=torch.float64)
    return torch.zeros_like(x) if kind == "blank" else x


def build(name):
    """A network of `NETWORKS` in double precision."""
    torch.manual_seed(0)
    return NETWORKS[name]().double()

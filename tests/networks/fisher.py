"""Fisher information of a spiking network, sample by sample."""

from __future__ import annotations

import torch
from torch import nn

from lit_meta.functional.fisher import diagonal_fisher


def assert_fisher_is_that_of_a_loop(network, x, y):
    expected = [torch.zeros_like(layer.weight) for layer in network.layers]
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(network(x[i : i + 1]), y[i : i + 1])
        for total, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            total += gradient**2 / len(x)
    for got, total in zip(diagonal_fisher(network, x, y).values(), expected, strict=True):
        torch.testing.assert_close(got, total, rtol=1e-6, atol=1e-14)

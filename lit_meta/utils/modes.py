"""Contexts that set modes of a network or of PyTorch, and restore them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Restores the mode of every submodule."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Sets the precision of float32 matrix products, as `torch.set_float32_matmul_precision`, and restores it."""
    outer = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(outer)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients."""
    with modes_kept(network), torch.inference_mode():
        network.eval()
        yield

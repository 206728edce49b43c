"""Modes of a network and of PyTorch, put back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Afterwards every submodule has its former mode back."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Products of float32 matrices at one of PyTorch's precisions, as of `torch.set_float32_matmul_precision`."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients."""
    with modes_kept(network), torch.inference_mode():
        network.eval()
        yield

"""Trying something out, and leaving everything as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.functional._module_state import ModuleState


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Afterwards the global generators of PyTorch, NumPy and Python stand where they stood.

    Example:
        >>> before = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    numpy: Any = sys.modules.get("numpy")  # Where nobody has imported it, nobody draws from it.
    devices = torch.cuda.is_available() and torch.cuda.is_initialized()
    kept = torch.get_rng_state(), torch.cuda.get_rng_state_all() if devices else [], random.getstate()
    arrays = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        if kept[1]:
            torch.cuda.set_rng_state_all(kept[1])
        random.setstate(kept[2])
        if arrays is not None:
            numpy.random.set_state(arrays)


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards what a module keeps beside its parameters is as it was, so that the next run does not go on from this one.

    Example:
        >>> network = nn.BatchNorm1d(2)
        >>> with state_kept(network):
        ...     _ = network(torch.rand(3, 2))
        >>> int(network.num_batches_tracked)
        0
    """
    state = ModuleState(module)
    try:
        yield
    finally:
        state.restore()


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards everything that belongs to a module is as it was.

    That is parameters, their gradients and whether they require any, buffers, modes, plain attributes (counters, lists, the
    sums of a metric) of all submodules, and the global random state.

    Example:
        >>> network = nn.BatchNorm1d(2)
        >>> with untouched(network):
        ...     _ = network.train()(torch.rand(3, 2)).sum().backward()
        >>> network.running_mean, network.weight.grad
        (tensor([0., 0.]), None)
    """
    parameters = [(p, p.detach().clone(), _version(p), p.grad, p.requires_grad) for p in module.parameters()]
    state = ModuleState(module)
    for parameter, *_ in parameters:
        parameter.grad = None
    try:
        with random_state_kept():
            module.eval()
            yield
    finally:
        state.restore()
        with torch.no_grad():
            for parameter, value, version, gradient, required in parameters:
                if _version(parameter) != version:
                    parameter.copy_(value)
                parameter.grad = gradient
                parameter.requires_grad_(required)


def _version(tensor: Tensor) -> int:
    """Changes with every change in place; tensors of inference mode do not count theirs, and cannot be restored."""
    return 0 if tensor.is_inference() else tensor._version

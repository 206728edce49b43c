"""Contexts that restore random generators, module state and parameters."""

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
    """Restores the state of the global generators of PyTorch, NumPy and Python.

    Example:
        >>> before = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    numpy: Any = sys.modules.get("numpy")  # If it was never imported, nothing draws from it.
    devices = torch.cuda.is_available() and torch.cuda.is_initialized()
    state = torch.get_rng_state(), torch.cuda.get_rng_state_all() if devices else [], random.getstate()
    arrays = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(state[0])
        if state[1]:
            torch.cuda.set_rng_state_all(state[1])
        random.setstate(state[2])
        if arrays is not None:
            numpy.random.set_state(arrays)


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Restores the state that a module keeps beside its parameters, so that runs inside do not affect later ones.

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
    """Sets evaluation mode, and afterwards restores everything that belongs to a module.

    That is parameters, their gradients and ``requires_grad``, buffers, modes, plain attributes (counters, lists, the sums of a
    metric) of all submodules, and the global random state.

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
    """Changes with every in-place change; inference tensors have no version counter and cannot be restored."""
    return 0 if tensor.is_inference() else tensor._version

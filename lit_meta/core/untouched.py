"""Contexts that restore the state and the parameters of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_meta.functional._module_state import ModuleState
from lit_meta.functional._random_state import random_state_kept


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

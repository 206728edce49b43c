"""The trainable parameters of a network as they change: unfrozen, grown, or replaced by others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from lit_meta.core.rule import Synapses


def trainable(network: nn.Module, besides: Synapses | None = None) -> Synapses:
    """The trainable parameters and those of ``besides``, trainable or not, in the network's order.

    Raises:
        ValueError: there is none.

    Example:
        >>> network = nn.Linear(2, 1)
        >>> before = trainable(network)
        >>> network.weight.requires_grad_(False) is network.weight
        True
        >>> trainable(network).names, trainable(network, before).names
        (('bias',), ('weight', 'bias'))
    """
    known = set() if besides is None else {id(p) for p in besides.parameters}
    pairs = [(n, p) for n, p in network.named_parameters() if p.requires_grad or id(p) in known]
    if not pairs:
        raise ValueError("the network has no trainable parameter: everything is frozen")
    return subset(network, pairs)


def newcomers(network: nn.Module, known: Synapses) -> Synapses:
    """The trainable parameters that are not among the known ones, since they were unfrozen later."""
    ids = {id(p) for p in known.parameters}
    return subset(network, [(n, p) for n, p in network.named_parameters() if p.requires_grad and id(p) not in ids])


def replaced(before: Synapses, now: Synapses) -> list[str]:
    """Names of parameters that are different objects with the same shape and different values: freshly initialised ones.

    A layer of another size counts as the old one grown, since layers grow by being built anew.

    Example:
        >>> old, new = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        >>> replaced(trainable(old), trainable(new))
        ['weight']
        >>> new.load_state_dict(old.state_dict())
        <All keys matched successfully>
        >>> replaced(trainable(old), trainable(new))
        []
    """
    old = dict(zip(before.names, before.parameters, strict=True))
    pairs = [(name, old[name], p) for name, p in zip(now.names, now.parameters, strict=True) if name in old]
    grown = {_layer(name) for name, o, p in pairs if o.shape != p.shape}
    return [n for n, o, p in pairs if o is not p and _layer(n) not in grown and not torch.equal(o.to(p), p)]


def has_gradient(synapses: Synapses) -> bool:
    """Whether any of them has a gradient; usually the first one has."""
    for parameter in synapses.parameters:  # noqa: SIM110 - in every step, where a generator costs more than the answer.
        if parameter.grad is not None:
            return True
    return False


@contextmanager
def learnable(synapses: Synapses) -> Iterator[None]:
    """Parameters that were frozen while they were learned can be differentiated in the block: they are consolidated too."""
    frozen = [parameter for parameter in synapses.parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def subset(network: nn.Module, pairs: list[tuple[str, nn.Parameter]]) -> Synapses:
    """Synapses of (name, parameter) pairs."""
    return Synapses(network, tuple(name for name, _ in pairs), [parameter for _, parameter in pairs])


def check_optimizer(optimizer: Optimizer) -> None:
    """Checks that a step of an optimizer consists of one backward pass and one update of the parameters.

    Raises:
        ValueError: the optimizer is LBFGS, which evaluates the loss several times in a step.
    """
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "LBFGS evaluates the loss several times in one step and rescales what a rule has done to the gradient: use a "
            "first-order optimizer such as SGD or Adam"
        )


def _layer(name: str) -> str:
    return name.rpartition(".")[0]

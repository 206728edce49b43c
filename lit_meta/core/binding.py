"""The trainable parameters of a network as they change: unfrozen, grown, or replaced by others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
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
    """Names of parameters that are other objects with other values: freshly initialised ones.

    A parameter that has grown keeps its old values in the part that it had; one that does not is fresh, whatever its size. One
    that has become smaller is left to `State.grow`, which refuses it.

    Example:
        >>> old, new = nn.Linear(2, 1, bias=False), nn.Linear(2, 3, bias=False)
        >>> replaced(trainable(old), trainable(new))
        ['weight']
        >>> with torch.no_grad():
        ...     _ = new.weight[:1].copy_(old.weight)
        >>> replaced(trainable(old), trainable(new))
        []
    """
    old = dict(zip(before.names, before.parameters, strict=True))
    pairs = [(name, old[name], p) for name, p in zip(now.names, now.parameters, strict=True) if name in old]
    refused = {_layer(name) for name, o, p in pairs if not _fits_into(o, p)}
    return [
        n
        for n, o, p in pairs
        if o is not p and _layer(n) not in refused and not torch.equal(o.to(p), _part(p, o.shape))
    ]


def _fits_into(old: Tensor, new: Tensor) -> bool:
    return old.dim() == new.dim() and all(o <= n for o, n in zip(old.shape, new.shape, strict=True))


def _part(tensor: Tensor, shape: torch.Size) -> Tensor:
    return tensor[tuple(slice(size) for size in shape)]


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

"""Frozen features: no mode, statistic or buffer below the head changes while the head learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from lit_meta.core.trees import tensors

# Larger buffers are not copied: any write to one counts as a change.
_MOST_COPIED = 2**20


class Frozen:
    """Keeps everything in a network but its heads in evaluation mode, whatever mode the host sets.

    A layer without gradients still changes its output: batch normalisation updates its statistics, dropout draws a new mask, a
    spiking network draws its input's spikes. `hold` is called before every training pass, since hosts call ``network.train()``
    at any time (Lightning after a validation, Avalanche in every epoch); it costs one check of each module's flag. The heads
    keep the host's mode, and so distinguish a training pass from an evaluation.

    A module that has to learn in the forward pass, without gradients, has the attribute ``learns_by_itself = True`` (as
    `lit_meta.networks.context.NoveltyGate`) and is exempt.

    Args:
        network: the network.
        heads: the modules in it that learn, at least one.
        owner: the module that the network is a part of, if any. What else of it has no trainable parameter keeps still too:
            the network may be the head of a backbone that stands beside it.

    Raises:
        ValueError: batch normalisation without running statistics, whose output depends on the rest of the batch.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> frozen = Frozen(network, [network[1]])
        >>> frozen.hold()
        >>> network[0].training, network[1].training
        (False, True)
        >>> frozen.release()
        >>> network[0].training
        True
    """

    def __init__(self, network: nn.Module, heads: Iterable[nn.Module], owner: nn.Module | None = None) -> None:
        self.heads = tuple(heads)
        beside = {} if owner is None or owner is network else dict(_beside(owner, network))
        exempt = {id(module) for head in self.heads for module in head.modules()}
        for module in network.modules():
            if getattr(module, "learns_by_itself", False):
                exempt |= {id(inner) for inner in module.modules()}
        named = [
            (f"{place}.{name}" if place and name else place or name, module)
            for place, root in {"": network, **beside}.items()
            for name, module in root.named_modules()
            if id(module) not in exempt and not _has_one_mode(name, module)
        ]
        self._watch = self._watch_inputs(network) if owner is not None and _learns_beside(owner, network) else None
        for name, module in named:
            if isinstance(module, _BatchNorm) and module.running_mean is None:
                raise ValueError(
                    f"module {name!r} ({type(module).__name__}) has no running statistics, so that a frozen feature still "
                    "depends on the rest of its batch: use track_running_stats=True, or another normalisation"
                )
        self._modules = [module for _, module in named]
        self._buffers = [
            (name, module, key)
            for name, module in named
            for key in module._buffers
            if key not in module._non_persistent_buffers_set
        ]
        self._copies = [_copy(module._buffers[key]) for _, module, key in self._buffers]
        self._versions: list[tuple[Tensor | None, int]] = []
        self._changed: dict[int, nn.Module] = {}
        self._host_trains = True

    @property
    def evaluates(self) -> bool:
        """Whether the host has put the network in evaluation mode."""
        return not self.heads[0].training

    def hold(self) -> None:
        """Before a training pass: sets evaluation mode and records the versions of the buffers."""
        self._forget_if_evaluated()
        for module in self._modules:
            if module.training:
                _set_mode(module, False)
                self._changed[id(module)] = module
        self._host_trains = self.heads[0].training
        self._versions = [_version(module._buffers[key]) for _, module, key in self._buffers]

    def check(self) -> None:
        """At the input of a head: checks that no buffer has changed since `hold`.

        Raises:
            ValueError: a buffer has changed.
        """
        for owner, (before, version), copy in zip(self._buffers, self._versions, self._copies, strict=True):
            name, module, key = owner
            now = module._buffers.get(key)
            if now is before and _version(now)[1] == version:
                continue
            # Written to, but perhaps with the same values, as by DDP's broadcast from the first process.
            if now is None or copy is None or not torch.equal(now.detach().to(copy.device), copy):
                raise ValueError(
                    f"module {name or 'the network itself'!r} ({type(module).__name__}) changes its buffer {key!r} in the "
                    "forward pass, also in evaluation mode, so the features below the head are not frozen: keep it still, "
                    "or train with freeze=False; nothing was learned from this batch"
                )

    def close(self) -> None:
        """Releases, and no longer looks at what the network is given."""
        self.release()
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def release(self) -> None:
        """Restores the host's mode in every module."""
        self._forget_if_evaluated()
        for module in self._changed.values():
            _set_mode(module, True)
        self._changed = {}

    def _watch_inputs(self, network: nn.Module) -> RemovableHandle:
        def refuse_gradients(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            learns = module.training or any(head.training for head in self.heads)
            if learns and any(tensor.requires_grad for tensor in tensors(arguments)):
                raise ValueError(
                    f"the features that {type(module).__name__} gets come from parameters outside it that are being trained, "
                    "while the rule keeps all below its head still: freeze them (requires_grad_(False)), or let the rule's "
                    "network be the whole; nothing was learned from this batch"
                )

        return network.register_forward_pre_hook(refuse_gradients)

    def _forget_if_evaluated(self) -> None:
        # The host has called network.eval() since: evaluation mode is now its own choice.
        if self._host_trains and self.evaluates:
            self._changed = {}


def _has_one_mode(name: str, module: nn.Module) -> bool:
    """Whether a module is a recurrent layer without dropout, whose mode changes nothing.

    cuDNN's refuse a backward pass in evaluation mode, and the host's goes through them.

    Raises:
        ValueError: a recurrent layer with dropout on a GPU, which cannot be kept still.
    """
    if not isinstance(module, nn.RNNBase):
        return False
    if module.dropout and any(p.is_cuda and p.requires_grad for p in module.parameters()):
        raise ValueError(
            f"module {name!r} ({type(module).__name__}) has dropout, which a frozen feature must not have, and on a GPU cannot "
            "be in evaluation mode while others learn: freeze its parameters (requires_grad_(False)), or set its dropout to 0"
        )
    return not module.dropout


def _beside(owner: nn.Module, network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The largest parts of a module, by name, that neither contain the network, nor lie in it, nor have anything to train."""
    inside = {id(module) for module in network.modules()}
    pending = [("", owner)]
    while pending:
        path, module = pending.pop()
        for name, child in module.named_children():
            if id(child) in inside:
                continue
            place = f"{path}.{name}" if path else name
            if any(inner is network for inner in child.modules()):
                pending.append((place, child))
            elif not any(p.requires_grad for p in child.parameters()):
                yield place, child


def _learns_beside(owner: nn.Module, network: nn.Module) -> bool:
    own = {id(p) for p in network.parameters()}
    return any(p.requires_grad and id(p) not in own for p in owner.parameters())


def _set_mode(module: nn.Module, training: bool) -> None:
    # nn.Module.__setattr__ is slow, and the flag is set in many modules at every step.
    if "training" in module.__dict__:
        module.__dict__["training"] = training
    else:
        module.training = training


def _version(buffer: Tensor | None) -> tuple[Tensor | None, int]:
    return buffer, 0 if buffer is None or buffer.is_inference() else buffer._version


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None or buffer.numel() > _MOST_COPIED else buffer.detach().clone()

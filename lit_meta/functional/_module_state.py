"""What a network keeps from one call to the next beside its parameters: membrane potentials, counters, buffers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Parts of every module that a forward pass has no business with; parameters are swapped by `torch.func` meanwhile, and
# the forward pass of recurrent layers is another one.
_STRUCTURE = (frozenset(nn.Module().__dict__) | {"forward"}) - {"_buffers", "training"}

# Tensors of more numbers (a replay memory) are not copied: a replacement is undone, a change in place is not. Containers are
# looked into this deep, since they may contain themselves.
_LARGEST = 2**27
_DEPTH = 8


class _Saved:
    """A value and what it contains, so that a replacement and a change in place can both be undone."""

    def __init__(self, value: Any, depth: int = _DEPTH) -> None:
        self.value = value
        self.copy: Tensor | None = None
        self.items: dict[Any, _Saved] | list[_Saved] | None = None
        if isinstance(value, Tensor):
            if isinstance(value, nn.Parameter) or value.numel() > _LARGEST:
                return
            self.copy = value.detach().clone()
        elif isinstance(value, dict) and depth:
            self.items = {key: _Saved(item, depth - 1) for key, item in value.items()}
        elif isinstance(value, list) and depth:
            self.items = [_Saved(item, depth - 1) for item in value]

    def restore(self, forgotten: Collection[_Saved] = ()) -> Any:
        if self in forgotten and self.copy is not None:
            return torch.zeros_like(self.copy)
        if self.copy is not None:
            if not same_values(self.value, self.copy):
                with torch.no_grad():
                    self.value.copy_(self.copy)
        elif isinstance(self.items, dict):
            contents = {key: item.restore(forgotten) for key, item in self.items.items()}
            self.value.clear()
            self.value.update(contents)
        elif self.items is not None:
            self.value[:] = [item.restore(forgotten) for item in self.items]
        return self.value

    def changes(self, value: Any) -> Iterator[_Saved]:
        """The saved values that differ from those in ``value``."""
        if self.copy is not None:
            if not isinstance(value, Tensor) or not same_values(value, self.copy):
                yield self
        elif isinstance(self.items, dict) and isinstance(value, dict):
            if self.items.keys() != value.keys():
                yield self
            for key in self.items.keys() & value.keys():
                yield from self.items[key].changes(value[key])
        elif isinstance(self.items, list) and isinstance(value, list):
            if len(self.items) != len(value):
                yield self
            for item, now in zip(self.items, value, strict=False):
                yield from item.changes(now)
        elif self.items is not None or value is not self.value:
            yield self

    def tensors(self) -> Iterator[Tensor]:
        if self.copy is not None:
            yield self.value
        for item in self.items.values() if isinstance(self.items, dict) else self.items or ():
            yield from item.tensors()

    def remembers(self) -> bool:
        """Whether it is a tensor with a nonzero element: after a reset there are only zeros, empty tensors and numbers."""
        return self.copy is not None and bool(self.copy.any())


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype, device and values, with NaN equal to NaN."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    try:
        with torch.no_grad():
            return bool(((a == b) | ((a != a) & (b != b))).all())
    except RuntimeError:
        return False  # a tensor left by a failed `torch.func` transform cannot be read


class ModuleState:
    """The attributes and buffers of a network's modules at this moment.

    Args:
        network: the network.
        paths: only the modules of these names; None for all.

    Example:
        >>> network = nn.BatchNorm1d(2)
        >>> state = ModuleState(network)
        >>> _ = network(torch.randn(8, 2))
        >>> sorted(state.changed_paths()), state.restore(), int(network.num_batches_tracked)
        ([''], None, 0)
    """

    def __init__(self, network: nn.Module, paths: Collection[str] | None = None) -> None:
        self._saved: dict[str, tuple[nn.Module, dict[str, _Saved]]] = {
            path: (module, {key: _Saved(value) for key, value in module.__dict__.items() if key not in _STRUCTURE})
            for path, module in network.named_modules()
            if paths is None or path in paths
        }

    def changes(self) -> Iterator[tuple[str, str, _Saved | None]]:
        """(path of the module, attribute, saved value); the value is None for a new attribute."""
        for path, (module, saved) in self._saved.items():
            for key, entry in saved.items():
                for change in entry.changes(module.__dict__.get(key)):
                    yield path, key, change
            for key in module.__dict__.keys() - saved.keys() - _STRUCTURE:
                yield path, key, None

    def changed_paths(self) -> frozenset[str]:
        """The modules that have changed."""
        return frozenset(path for path, _, _ in self.changes())

    def tensors(self) -> list[Tensor]:
        """The saved tensors, without parameters."""
        return [tensor for _, saved in self._saved.values() for entry in saved.values() for tensor in entry.tensors()]

    def restore(self, *, parameters: bool = True, forgotten: Collection[_Saved] = ()) -> None:
        """Restores everything, also after a failed call has left tensors that can no longer be read.

        Args:
            parameters: restore recurrent layers' lists of their parameters too; not while `torch.func` has swapped
                the parameters.
            forgotten: saved values from `changes` that are replaced by zeros this time.
        """
        for module, saved in self._saved.values():
            for key in module.__dict__.keys() - saved.keys() - _STRUCTURE:
                del module.__dict__[key]
            for key, entry in saved.items():
                if parameters or not key.startswith("_flat_weight"):
                    module.__dict__[key] = entry.restore(forgotten)

"""Counts the bytes of tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class SavedTensors:
    """Bytes that autograd saves for the backward pass of what is computed inside, parameters excluded.

    Storage saved by several nodes counts once.

    Args:
        network: its parameters and buffers are not counted, since they exist anyway.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> with SavedTensors(network) as saved:
        ...     _ = network(torch.ones(5, 4)).tanh()
        >>> saved.bytes  # the input of the layer and the output of the tanh, in single precision
        140
    """

    def __init__(self, network: nn.Module) -> None:
        self._known = {_storage(t) for t in (*network.parameters(), *network.buffers())}
        self._kept: dict[int, Tensor] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.bytes = 0

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in self._known and storage not in self._kept:
            # Kept until the end, so that no later tensor gets the same address.
            self._kept[storage] = tensor.detach()
            self.bytes += tensor.untyped_storage().nbytes()
        # Not the tensor itself: a node that saves its own output would keep itself alive.
        return tensor.detach()

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        self._kept.clear()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tensor_bytes(tensors: Iterable[object]) -> int:
    """Total bytes of the tensors among some objects; everything else is skipped.

    Example:
        >>> tensor_bytes([torch.zeros(3), None, 1.0])
        12
    """
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

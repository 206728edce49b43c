"""Memory that is used again from step to step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Scratch:
    """Buffers by name: fresh memory of a network's size, at every step, costs as much as what is then done in it.

    Example:
        >>> scratch = Scratch()
        >>> first = scratch.copy(["weight"], [torch.ones(2)])
        >>> scratch.copy(["weight"], [torch.zeros(2)])[0] is first[0]
        True
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def copy(self, names: Iterable[str], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the tensors, which are valid until the next call with the same names."""
        buffers = []
        for name, tensor in zip(names, tensors, strict=True):
            held = self._held.get(name)
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype or held.device != tensor.device:
                held = self._held[name] = torch.empty_like(tensor, requires_grad=False)
            buffers.append(held)
        with torch.no_grad():
            torch._foreach_copy_(buffers, list(tensors))
        return buffers

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


class Recycled:
    """Memory by name for results that others may keep: it is used again only once nobody else holds it.

    Whoever keeps such a result, or a view of it, keeps it unchanged; the next one is then written elsewhere.

    Example:
        >>> recycled, like = Recycled(), torch.zeros(2)
        >>> first = recycled.empty("weight", like)
        >>> place = first.data_ptr()
        >>> second = recycled.empty("weight", like)  # The first is held: fresh memory.
        >>> second.data_ptr() == place
        False
        >>> place = second.data_ptr()
        >>> del second
        >>> recycled.empty("weight", like).data_ptr() == place
        True
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[Tensor, torch.UntypedStorage]] = {}

    def empty(self, name: str, like: Tensor) -> Tensor:
        """A tensor of any content, of the shape, type and device of another.

        Args:
            name: of the result; each has memory of its own.
            like: the other.
        """
        held = self._held.get(name)
        if held is not None:
            tensor, storage = held
            # Two holders are here: the tensor and the storage.
            if tensor.shape == like.shape and tensor.dtype == like.dtype and _holders(storage._cdata) == 2:
                return tensor.detach()
        fresh = torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)
        # Accelerators have an allocator that does this already.
        if fresh.device.type == "cpu" and _HOLDERS_ARE_KNOWN:
            self._held[name] = (fresh.detach(), fresh.untyped_storage())
        return fresh

    def clear(self) -> None:
        """Lets go of all of it."""
        self._held = {}


# Not a public function of torch, so that it may be missing: memory is always fresh then.
_HOLDERS_ARE_KNOWN = hasattr(torch._C, "_storage_Use_Count")


def _holders(storage: int) -> int:
    return torch._C._storage_Use_Count(storage)

"""Buffers that are reused from step to step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Scratch:
    """Buffers by name: allocating memory of a network's size at every step costs as much as the computation in it.

    Example:
        >>> scratch = Scratch()
        >>> first = scratch.copy(["weight"], [torch.ones(2)])
        >>> scratch.copy(["weight"], [torch.zeros(2)])[0] is first[0]
        True
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, names: Iterable[str], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the tensors, which are valid until the next call with the same names."""
        buffers = self.empty(names, tensors)
        with torch.no_grad():
            torch._foreach_copy_(buffers, list(tensors))
        return buffers

    def empty(self, names: Iterable[str], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Buffers of the tensors' form, with any content."""
        buffers = []
        for name, tensor in zip(names, tensors, strict=True):
            buffer = self._buffers.get(name)
            if (
                buffer is None
                or buffer.shape != tensor.shape
                or buffer.dtype != tensor.dtype
                or buffer.device != tensor.device
            ):
                buffer = self._buffers[name] = torch.empty_like(tensor, requires_grad=False)
            buffers.append(buffer)
        return buffers

    def exchange(self, names: Iterable[str], tensors: Iterable[Tensor]) -> None:
        """Gives up the buffers of these names to whoever has them, and takes tensors of the same form in their place."""
        self._buffers.update(zip(names, tensors, strict=True))


class Recycled:
    """Memory by name for results that callers may keep: it is reused only when nothing else references it.

    A result that is kept, or a view of it, stays unchanged; the next one is then written elsewhere.

    Example:
        >>> recycled, like = Recycled(), torch.zeros(2)
        >>> first = recycled.empty("weight", like)
        >>> place = first.data_ptr()
        >>> second = recycled.empty("weight", like)  # The first is still referenced: fresh memory.
        >>> second.data_ptr() == place
        False
        >>> place = second.data_ptr()
        >>> del second
        >>> recycled.empty("weight", like).data_ptr() == place
        True
    """

    def __init__(self) -> None:
        self._buffers: dict[str, tuple[Tensor, torch.UntypedStorage]] = {}

    def empty(self, name: str, like: Tensor) -> Tensor:
        """An uninitialised tensor with the shape, dtype and device of another.

        Args:
            name: the result's name; each name has memory of its own.
            like: gives shape, dtype and device.
        """
        buffer = self._buffers.get(name)
        if buffer is not None:
            tensor, storage = buffer
            # Two references are this object's own: the tensor and the storage.
            if tensor.shape == like.shape and tensor.dtype == like.dtype and _references(storage._cdata) == 2:
                return tensor.detach()
        fresh = torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)
        # The caching allocators of accelerators do this already.
        if fresh.device.type == "cpu" and _CAN_COUNT_REFERENCES:
            self._buffers[name] = (fresh.detach(), fresh.untyped_storage())
        return fresh

    def clear(self) -> None:
        """Releases all buffers."""
        self._buffers = {}


# Not a public function of torch, so it may be missing; memory is then always fresh.
_CAN_COUNT_REFERENCES = hasattr(torch._C, "_storage_Use_Count")


def _references(storage: int) -> int:
    return torch._C._storage_Use_Count(storage)

"""A limit on the memory that building something may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class MemoryLimit(TorchDispatchMode):
    """Refuses tensors, made while it is entered, that together are larger than a limit.

    It looks at sizes before the memory is taken, or before anything is written to it, so that a network described by a few
    characters costs nothing. Values and random numbers are the same with it.

    Args:
        most_bytes: of all new tensors together.
        message: of the error.
        most_operations: of tensors; None for any number. A short list of many small layers costs time rather than memory.

    Raises:
        ValueError: inside, once the limit is passed.

    Example:
        >>> with MemoryLimit(4000, "too large"):
        ...     torch.zeros(1000).sum()
        tensor(0.)
        >>> with MemoryLimit(4000, "too large"):
        ...     torch.ones(10**12)
        Traceback (most recent call last):
        ...
        ValueError: too large
    """

    def __init__(self, most_bytes: int, message: str, *, most_operations: int | None = None) -> None:
        super().__init__()
        self.left = most_bytes + _SCALARS
        self.operations_left = math.inf if most_operations is None else most_operations
        self.message = message

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        self.operations_left -= 1
        if self.operations_left < 0:
            raise ValueError(self.message)
        fresh = (
            func._schema.returns and func._schema.returns[0].alias_info is None
        )  # Neither a view nor written in place.
        first = args[0] if args else ()
        if isinstance(first, Tensor):
            size: Sequence[Any] = first.shape if func._schema.name.endswith("_like") else ()
        else:
            size = first if isinstance(first, (list, tuple)) else ()
        on_meta = torch.device(options.get("device") or "cpu").type == "meta"
        if fresh and not on_meta and all(isinstance(n, int) for n in size) and math.prod(size) > self.left:
            raise ValueError(self.message)
        output = func(*args, **options)
        if fresh and isinstance(output, Tensor) and output.device.type != "meta":
            self.left -= output.numel() * output.element_size()
            if self.left < 0:
                raise ValueError(self.message)
        return output


_SCALARS = 1024  # Bytes for results of a few values, such as a sum.

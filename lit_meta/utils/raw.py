"""The bytes of a tensor, for digests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def raw_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as they lie in memory, in its order; of a tensor elsewhere, or not contiguous, those of a copy.

    Example:
        >>> raw_bytes(torch.tensor([1, 256], dtype=torch.int16)).tolist()
        [1, 0, 0, 1]
    """
    array: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(array)

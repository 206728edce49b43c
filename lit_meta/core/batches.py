"""Inputs and targets of batches in the forms that hosts use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lit_meta.core.trees import tensors

BatchFunction = Callable[[Any], tuple[Tensor, Tensor | None]]


def unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of a batch in one of the common forms.

    Args:
        batch: a tensor (inputs only), a sequence of one or two tensors (inputs, targets), or a mapping with ``"inputs"`` or
            ``"x"`` and ``"targets"``, ``"labels"`` or ``"y"``.

    Raises:
        TypeError: the batch has another form; where there is an argument ``unpack``, pass a function of your own.

    Example:
        >>> import torch
        >>> unpack({"x": torch.zeros(2, 3), "y": torch.tensor([0, 1])})[1]
        tensor([0, 1])
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) > 2:
        raise TypeError(
            f"a batch of {len(batch)} parts does not say which of them are inputs and labels; "
            "pass a function that returns (inputs, targets) as the argument unpack"
        )
    if isinstance(batch, Mapping):
        inputs = next((batch[k] for k in ("inputs", "x") if k in batch), None)
        targets = next((batch[k] for k in ("targets", "labels", "y") if k in batch), None)
    elif isinstance(batch, (tuple, list)) and batch:
        inputs, targets = batch[0], batch[1] if len(batch) > 1 else None
    else:
        inputs, targets = None, None
    if not isinstance(inputs, Tensor) or not (targets is None or isinstance(targets, Tensor)):
        raise TypeError(
            f"a batch must be a tensor, (inputs, targets) or a mapping of them, got {type(batch).__name__}; "
            "pass a function that returns (inputs, targets) as the argument unpack"
        )
    return inputs, targets


def as_pair(batch: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Unpacks a batch that is an (inputs, targets) pair already."""
    return batch


class UnpackOnce:
    """Unpacks every batch once, however many readers it has: a user's function may concatenate or convert, which costs time.

    Args:
        function: returns (inputs, targets) of a batch.

    Example:
        >>> import torch
        >>> calls = []
        >>> reader = UnpackOnce(lambda batch: calls.append(1) or batch)
        >>> batch = (torch.zeros(1), torch.zeros(1))
        >>> reader(batch) is reader(batch), len(calls)
        (True, 1)
    """

    def __init__(self, function: BatchFunction) -> None:
        self.function: BatchFunction = function.function if isinstance(function, UnpackOnce) else function
        self._last: tuple[Any, list[tuple[int, int]], tuple[Tensor, Tensor | None]] | None = None

    def __call__(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        if self.function is unpack:  # Cheaper than caching.
            return unpack(batch)
        # A batch may be changed in place between two readers, which the versions of its tensors show.
        content = [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors(batch)]
        if self._last is None or self._last[0] is not batch or self._last[1] != content:
            self._last = batch, content, self.function(batch)
        return self._last[2]

    def forget(self) -> None:
        """Releases the last batch."""
        self._last = None

    def __reduce__(self) -> tuple[type[UnpackOnce], tuple[BatchFunction]]:
        return type(self), (self.function,)

"""Batches as the hosts bring them: what is input, what is label, and in which order data are read again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

BatchFunction = Callable[[Any], tuple[Tensor, Tensor | None]]


def unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of a batch in one of the common forms.

    Args:
        batch: a tensor (inputs only), a sequence (inputs, targets, ...), or a mapping with ``"inputs"`` or ``"x"`` and
            ``"targets"``, ``"labels"`` or ``"y"``.

    Raises:
        TypeError: another form; give a function of your own where one can be given.

    Example:
        >>> unpack({"x": torch.zeros(2, 3), "y": torch.tensor([0, 1])})[1]
        tensor([0, 1])
    """
    if isinstance(batch, Tensor):
        return batch, None
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
            "give a function that takes it apart (the argument unpack)"
        )
    return inputs, targets


def in_order(data: Iterable[object]) -> Iterable[object]:
    """The same batches in the data set's own order, where ``data`` is a loader that may shuffle.

    Consolidation then gives the same numbers whatever the host's shuffling, and draws no random numbers of its.
    """
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset) or data.batch_size is None:
        return data
    return DataLoader(data.dataset, batch_size=data.batch_size, collate_fn=data.collate_fn, generator=torch.Generator())


class Batches:
    """The data of an experience as (inputs, targets) batches on the network's device, in a fixed order.

    Args:
        network: the network they are meant for.
        data: batches, or a loader of them.
        unpack: takes a batch apart.
    """

    def __init__(self, network: nn.Module, data: Iterable[object] | None, unpack: BatchFunction = unpack) -> None:
        self.network = network
        self._data: Iterable[object] = () if data is None else in_order(data)
        self._unpack = unpack

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        device = next(self.network.parameters()).device
        for batch in self._data:
            inputs, targets = self._unpack(batch)
            yield inputs.to(device), None if targets is None else targets.to(device)

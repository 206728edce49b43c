"""The training data of an experience, read again in an order that does not depend on shuffling."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lit_meta.core.trees import moved
from lit_meta.functional._random_state import random_state_kept


class ExperienceData(ABC):
    """The batches of an experience's training steps, which a host passes on when the experience ends.

    They go through everything that a training batch goes through (sampler, limits, collation, hooks, conversion, device),
    each sample as often as training saw it relative to others, in a fixed order, and can be read more than once.

    Attributes:
        batches_per_step: how many consecutive batches one training step saw, in all processes together.
    """

    batches_per_step: int = 1

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yields batches as the training step receives them."""


class PlainData(ExperienceData):
    """Batches, or a loader of them, in a fixed order and on the network's device.

    Args:
        network: its parameters determine the device.
        data: batches, a loader, or None for no data.

    Example:
        >>> network, x = nn.Linear(1, 1), torch.arange(3.0).unsqueeze(1)
        >>> [batch.flatten().tolist() for batch in PlainData(network, DataLoader(x, batch_size=2, shuffle=True))]
        [[0.0, 1.0], [2.0]]
    """

    def __init__(self, network: nn.Module, data: Iterable[Any] | None) -> None:
        self._network = network
        self._data: Iterable[Any] = () if data is None else data
        self.batches_per_step = replicas(self._data)

    def __iter__(self) -> Iterator[Any]:
        device = next(self._network.parameters()).device
        for batch in in_order(self._data):
            yield moved(batch, device)


def in_order(data: Iterable[Any]) -> Iterable[Any]:
    """The batches of ``data`` in an order that does not depend on its shuffling.

    A loader over a dataset that can be indexed yields every sample as often as its sampler draws it, in the order of the
    dataset. The state of every generator is restored.
    """
    if isinstance(data, (list, tuple)):
        return data
    if not rebuildable(data):
        return _Undisturbed(data)
    assert isinstance(data, DataLoader)
    if reads_in_order(data):
        return loader_in_order(data)
    if reads_all(data):
        return loader_in_order(data, drop_last=False)
    with random_state_kept(), _generators_kept(data):
        torch.manual_seed(0)
        return loader_of(data, [list(_copy_of_sampler(data))])


def rebuildable(data: object) -> bool:
    """Whether a loader's batches can be rebuilt from its dataset with another order of indices."""
    return (
        isinstance(data, DataLoader)
        and type(data).__iter__ is DataLoader.__iter__
        and not isinstance(data.dataset, IterableDataset)
    )


def reads_in_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader reads its dataset in order, from the first sample on."""
    return type(_sampler(loader)) is SequentialSampler


def reads_all(loader: DataLoader[Any]) -> bool:
    """Whether one pass over a loader (over those of all processes together) visits every sample of the dataset."""
    sampler, batching = _sampler(loader), _batching(loader)
    if sampler is None:
        return False
    if batching is not None and batching.drop_last and len(sampler) % batching.batch_size:  # type: ignore[arg-type]
        return False
    size = len(loader.dataset)  # type: ignore[arg-type]
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == size
    if isinstance(sampler, DistributedSampler):
        return sampler.total_size >= size and len(sampler.dataset) == size  # type: ignore[arg-type]
    return type(sampler) is SequentialSampler or (hasattr(sampler, "order") and len(sampler) == size)  # type: ignore[arg-type]


def order_of(loader: DataLoader[Any]) -> Callable[[int], list[list[Any]]] | None:
    """A function from an epoch to its batches of indices, where the sampler can tell: it has a method ``order(epoch)``.

    None if it cannot, or if another sampler forms the batches.
    """
    batching, sampler = _batching(loader), _sampler(loader)
    order = getattr(sampler, "order", None)
    if batching is None or order is None:
        return None
    size, drop_last = batching.batch_size, batching.drop_last

    def batches(epoch: int) -> list[list[Any]]:
        indices = list(order(epoch))
        whole = len(indices) // size * size if drop_last else len(indices)
        return [indices[start : start + size] for start in range(0, whole, size)]

    return batches


def replicas(loader: object) -> int:
    """Among how many processes a loader's samples are shared out; each reads batches of its own in one step.

    Example:
        >>> data = torch.zeros(8, 1)
        >>> sampler = DistributedSampler(data, num_replicas=4, rank=0)
        >>> replicas(DataLoader(data, sampler=sampler)), replicas(DataLoader(data)), replicas([])
        (4, 1, 1)
    """
    if not rebuildable(loader):
        return 1
    assert isinstance(loader, DataLoader)
    sampler = _sampler(loader)
    return int(sampler.num_replicas) if isinstance(sampler, DistributedSampler) else 1


def _batching(loader: DataLoader[Any]) -> BatchSampler | None:
    batching: Any = loader.batch_sampler
    return getattr(batching, "watched", batching)  # type: ignore[no-any-return]


def _sampler(loader: DataLoader[Any]) -> Sampler[Any] | Iterable[Any] | None:
    """The sampler that orders the samples; None if a custom batch sampler forms the batches."""
    batching = _batching(loader)
    if batching is None:
        return getattr(loader.sampler, "watched", loader.sampler)
    return batching.sampler if type(batching) is BatchSampler else None


def loader_in_order(loader: DataLoader[Any], *, drop_last: bool | None = None) -> DataLoader[Any]:
    """The loader without its shuffling."""
    batching = _batching(loader)
    last = batching is not None and batching.drop_last if drop_last is None else drop_last
    return DataLoader(
        loader.dataset,
        batch_size=None if batching is None else batching.batch_size,
        collate_fn=loader.collate_fn,
        drop_last=last,
        generator=torch.Generator(),
    )


def loader_of(loader: DataLoader[Any], epochs: Sequence[Sequence[Any]]) -> DataLoader[Any]:
    """A loader of the samples that were read in training.

    Args:
        loader: with a dataset that can be indexed.
        epochs: for each epoch, its batches of indices (its indices, if the loader does not batch) in the order in which they
            were drawn.

    Returns:
        A loader of the same samples, each as often relative to others as in all epochs together, in the order of their
        indices. Batches formed by a custom batch sampler stay together.
    """
    batches = [batch for epoch in _different(epochs) for batch in epoch]
    own: dict[str, Any] = {"collate_fn": loader.collate_fn, "generator": torch.Generator()}
    batching = _batching(loader)
    if batching is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=_sorted(batches), **own)
    if type(batching) is not BatchSampler:
        return DataLoader(loader.dataset, batch_sampler=_sorted([_sorted(batch) for batch in batches]), **own)
    indices, size = _sorted([index for batch in batches for index in batch]), batching.batch_size
    chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
    return DataLoader(loader.dataset, batch_sampler=chunks, **own)


def _different(epochs: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """The epochs; only the first if all of them have drawn the same samples."""

    def content(epoch: Sequence[Any]) -> list[Any]:
        return _sorted([index for batch in epoch for index in (batch if isinstance(batch, list) else [batch])])

    first = content(epochs[0]) if epochs else []
    return epochs[:1] if all(content(epoch) == first for epoch in epochs[1:]) else epochs


def _sorted(items: Sequence[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:  # Indices need not be numbers.
        return sorted(items, key=repr)


def _copy_of_sampler(loader: DataLoader[Any]) -> Iterable[Any]:
    """A copy, since a sampler may count its epochs or draw from a generator of its own; this pass must not affect it."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    try:
        duplicate: Iterable[Any] = copy.deepcopy(sampler, {id(loader.dataset): loader.dataset})
    except Exception:
        return sampler  # type: ignore[no-any-return]
    return duplicate


class _Undisturbed:
    """Batches that only their own iterator can produce, from the same seed whenever they are read."""

    def __init__(self, data: Iterable[Any]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        with random_state_kept(), _generators_kept(self._data):
            torch.manual_seed(0)
            random.seed(0)
            yield from self._data


@contextmanager
def _generators_kept(data: object) -> Iterator[None]:
    """Restores the state of the generators that a loader and its samplers own."""
    batching = getattr(data, "batch_sampler", None)
    owners = (data, getattr(data, "sampler", None), batching, getattr(batching, "sampler", None))
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)

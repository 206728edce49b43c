"""Batches of any form: their tensors, and random samples from a stream of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_meta.functional._batch_tree import count_samples, map_samples, sample_leaves, take, with_leaves


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested mappings, lists and tuples."""
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def moved(tree: Any, device: torch.device) -> Any:
    """The same batch with its tensors on ``device``."""
    return map_samples(lambda leaf: leaf.to(device), tree)


def drawn(batches: Iterable[Any], samples: int, seed: int) -> Iterator[Any]:
    """Batches of ``samples`` samples, drawn uniformly without replacement from all samples of a stream.

    Makes one pass over the stream and keeps at most twice ``samples`` samples and a batch in memory. A stream of at most
    ``samples`` samples is returned unchanged.

    Args:
        batches: see `count_samples`.
        samples: at least 1.
        seed: of the generator.

    Example:
        >>> stream = (torch.full((4, 1), float(i)) for i in range(100))
        >>> sum(len(batch) for batch in drawn(stream, 10, seed=0))
        10
    """
    generator = torch.Generator().manual_seed(seed)
    pool: list[tuple[Tensor, Any]] = []
    largest = pooled = 0
    for batch in batches:
        count = count_samples(batch)
        # One random key for each sample: those with the smallest keys are a draw without replacement.
        pool.append((torch.rand(count, generator=generator, dtype=torch.float64), batch))
        largest, pooled = max(largest, count), pooled + count
        if pooled > 2 * samples:
            pool, pooled = _smallest(pool, samples), samples
    if pooled > samples:
        pool = _smallest(pool, samples)
    yield from _merged([batch for _, batch in pool], largest)


def _smallest(pool: list[tuple[Tensor, Any]], samples: int) -> list[tuple[Tensor, Any]]:
    bound = torch.cat([keys for keys, _ in pool]).kthvalue(samples).values
    kept = []
    for keys, batch in pool:
        rows = (keys <= bound).nonzero()[:, 0]
        if len(rows) == len(keys):
            kept.append((keys, batch))
        elif len(rows):
            kept.append((keys[rows], take(batch, rows)))
    return kept


def _merged(batches: list[Any], largest: int) -> Iterator[Any]:
    """The batches, with neighbours concatenated if they have the same form and at most ``largest`` samples together."""
    group: list[Any] = []
    count = 0
    for batch in batches:
        size = count_samples(batch)
        if group and (count + size > largest or not _same_form(group[0], batch)):
            yield _joined(group)
            group, count = [], 0
        group.append(batch)
        count += size
    if group:
        yield _joined(group)


def _same_form(first: Any, second: Any) -> bool:
    """Whether two batches differ only in their samples."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return bool(first.dim()) and first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same_form(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(_same_form(a, b) for a, b in zip(first, second, strict=True))
    return first is None


def _joined(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return with_leaves(batches[0], [torch.cat(column) for column in zip(*map(sample_leaves, batches), strict=True)])

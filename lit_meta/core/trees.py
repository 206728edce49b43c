"""Batches of any form: where their tensors are, and a draw of some samples from a stream of them."""

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
    """Batches of ``samples`` samples, drawn without replacement and with equal chances from all those of a stream.

    One pass over the stream; at no time are more than twice ``samples`` samples and a batch held. Where the stream has no
    more than ``samples``, all of it comes back as it was.

    Args:
        batches: see `count_samples`.
        samples: at least 1.
        seed: of the draw.

    Example:
        >>> stream = (torch.full((4, 1), float(i)) for i in range(100))
        >>> sum(len(batch) for batch in drawn(stream, 10, seed=0))
        10
    """
    generator = torch.Generator().manual_seed(seed)
    pool: list[tuple[Tensor, Any]] = []
    largest = held = 0
    for batch in batches:
        count = count_samples(batch)
        # The samples with the smallest of as many random numbers are a draw without replacement.
        pool.append((torch.rand(count, generator=generator, dtype=torch.float64), batch))
        largest, held = max(largest, count), held + count
        if held > 2 * samples:
            pool, held = _smallest(pool, samples), samples
    if held > samples:
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
    """The batches, neighbours put together where they have the same form and are no more than ``largest`` together."""
    waiting: list[Any] = []
    count = 0
    for batch in batches:
        size = count_samples(batch)
        if waiting and (count + size > largest or not _same_form(waiting[0], batch)):
            yield _joined(waiting)
            waiting, count = [], 0
        waiting.append(batch)
        count += size
    if waiting:
        yield _joined(waiting)


def _same_form(one: Any, two: Any) -> bool:
    """Whether two batches differ in nothing but their samples."""
    if type(one) is not type(two):
        return False
    if isinstance(one, Tensor):
        return bool(one.dim()) and one.shape[1:] == two.shape[1:] and one.dtype == two.dtype
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same_form(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(_same_form(a, b) for a, b in zip(one, two, strict=True))
    return one is None


def _joined(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return with_leaves(batches[0], [torch.cat(column) for column in zip(*map(sample_leaves, batches), strict=True)])

"""Batches of any form: tensors in nested dictionaries, lists and tuples, samples along the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def map_samples(function: Callable[[Tensor], Tensor], batch: Any, rows: Callable[[list], list] | None = None) -> Any:
    """The same batch with ``function`` applied to every tensor that has samples.

    Args:
        function: of a tensor (samples, ...).
        batch: tensors in nested mappings, lists and tuples. Numbers, strings, None and tensors without a dimension are
            shared by all samples and are kept.
        rows: applied to lists of other items than tensors (such as file names), one per sample.
    """
    if isinstance(batch, Tensor):
        return function(batch) if batch.dim() else batch
    if isinstance(batch, Mapping):
        items = {key: map_samples(function, value, rows) for key, value in batch.items()}
        return items if type(batch) is dict else type(batch)(items)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_samples(function, item, rows) for item in batch))
    if isinstance(batch, (list, tuple)):
        if rows is not None and batch and not any(isinstance(item, (Tensor, Mapping, list, tuple)) for item in batch):
            return type(batch)(rows(list(batch)))
        return type(batch)(map_samples(function, item, rows) for item in batch)
    return batch


def sample_leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch that have samples, in the order of `map_samples`."""
    leaves: list[Tensor] = []

    def keep(leaf: Tensor) -> Tensor:
        leaves.append(leaf)
        return leaf

    map_samples(keep, batch)
    return leaves


def count_samples(batch: Any) -> int:
    """The number of samples in a batch.

    Raises:
        ValueError: no tensor with samples, tensors that disagree, or no sample.

    Example:
        >>> count_samples({"image": torch.zeros(4, 3), "scale": torch.tensor(2.0)})
        4
    """
    sizes = sorted({len(leaf) for leaf in sample_leaves(batch)})
    if not sizes:
        raise ValueError(
            f"expected a batch of tensors with samples along the first dimension, got {type(batch).__name__}."
        )
    if len(sizes) > 1:
        raise ValueError(
            f"every tensor of a batch must have the samples along its first dimension, got first dimensions {sizes}."
        )
    if sizes[0] == 0:
        raise ValueError("expected at least one sample, got none.")
    return sizes[0]


def take(batch: Any, index: slice | Tensor) -> Any:
    """Some samples of a batch.

    Example:
        >>> take((torch.arange(3), ["a", "b", "c"]), slice(1, 2))
        (tensor([1]), ['b'])
    """
    count = count_samples(batch)
    positions = range(count)[index] if isinstance(index, slice) else index.tolist()

    def rows(items: list) -> list:
        return [items[i] for i in positions] if len(items) == count else items

    def pick(leaf: Tensor) -> Tensor:
        return leaf[index] if isinstance(index, slice) else leaf[index.to(leaf.device)]

    return map_samples(pick, batch, rows)


def with_leaves(batch: Any, leaves: list[Tensor] | tuple[Tensor, ...]) -> Any:
    """The same batch around other tensors, as `sample_leaves` gave them."""
    new = iter(leaves)
    return map_samples(lambda _: next(new), batch, lambda items: items[:1])


def blank(batch: Any) -> Any:
    """The batch with every floating-point number zero; whole numbers (tokens, labels) stay, since zero may mean padding."""
    return map_samples(lambda leaf: torch.zeros_like(leaf) if leaf.is_floating_point() else leaf, batch)


def scrambled(batch: Any, generator: torch.Generator) -> Any:
    """Random samples like those of a batch: normal numbers of the same mean and spread, whole numbers shuffled.

    Whole numbers are drawn anew for each position from those that samples have there, so that they stay valid.
    """

    def draw(leaf: Tensor) -> Tensor:
        if leaf.is_floating_point():
            spread, mean = leaf.double().std(correction=0), leaf.double().mean()
            if not bool(spread > 0):  # blank, or not finite
                spread, mean = torch.ones_like(spread), torch.zeros_like(mean)
            noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device)
            return (noise * spread + mean).to(leaf.dtype)
        order = torch.randint(len(leaf), leaf.shape, generator=generator).to(leaf.device)
        return leaf.gather(0, order)

    return map_samples(draw, batch)


def is_blank(batch: Any) -> bool:
    """Whether some sample has a floating-point tensor of equal numbers only."""
    leaves = [leaf.flatten(1) for leaf in sample_leaves(batch) if leaf.is_floating_point() and leaf.dim() > 1]
    return any(bool((leaf == leaf[:, :1]).all(dim=1).any()) for leaf in leaves)

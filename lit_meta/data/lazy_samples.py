"""Samples that stay on the disk until a batch asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lit_meta.data.readers.image import Channels, read_image

# Samples that take less than this as float32 are read once and kept.
KEPT_BYTES = 1 << 30


class LazySamples:
    """Samples behind a function; indexed like a tensor ``(samples, *shape)``, and read when indexed.

    Arithmetic with numbers and with tensors that broadcast to a sample is done on what is read, so that such a source can be
    scaled like any other.

    Args:
        items: what ``read`` takes, one a sample: a file, or a position in one.
        read: gives the sample of an item, a float32 tensor.
        changes: applied to each sample, in order.

    Raises:
        ValueError: no item, or the first cannot be read.

    Example:
        >>> numbers = LazySamples([1.0, 2.0, 3.0], lambda item: torch.full((2,), item))
        >>> numbers.shape, (numbers * 10)[torch.tensor([2, 0])]
        (torch.Size([3, 2]), tensor([[30., 30.],
                [10., 10.]]))
    """

    def __init__(
        self,
        items: Sequence[Any],
        read: Callable[[Any], Tensor],
        *,
        changes: tuple[Callable[[Tensor], Tensor], ...] = (),
    ) -> None:
        if not items:
            raise ValueError("expected at least one sample, got none")
        self.items, self.read, self.changes = tuple(items), read, changes
        first = self._sample(0, None)
        self.shape = torch.Size((len(self.items), *first.shape))
        self.dtype, self.device = first.dtype, first.device

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """The samples at an index: one for a number, else a batch ``(n, *shape)``.

        Raises:
            ValueError: one cannot be read, or has another shape than the first; it is named.
        """
        if isinstance(index, int) or (isinstance(index, Tensor) and index.dim() == 0):
            return self._sample(range(len(self))[int(index)], self.shape[1:])
        if isinstance(index, slice):
            positions = list(range(len(self)))[index]
        else:
            chosen = torch.as_tensor(index)
            positions = (chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen).tolist()
        if not positions:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        return torch.stack([self._sample(position, self.shape[1:]) for position in positions])

    def __mul__(self, factor: float | Tensor) -> LazySamples:
        return self.with_change(lambda sample: sample * factor)

    def __add__(self, offset: float | Tensor) -> LazySamples:
        return self.with_change(lambda sample: sample + offset)

    def with_change(self, change: Callable[[Tensor], Tensor]) -> LazySamples:
        """The same samples with one more change to each."""
        return LazySamples(self.items, self.read, changes=(*self.changes, change))

    def select(self, index: Tensor) -> LazySamples:
        """Some of the samples, none of which is read."""
        return LazySamples([self.items[position] for position in index.tolist()], self.read, changes=self.changes)

    def dim(self) -> int:
        """Dimensions, as a tensor has them."""
        return len(self.shape)

    def _sample(self, position: int, shape: torch.Size | None) -> Tensor:
        sample = self.read(self.items[position])
        for change in self.changes:
            sample = change(sample)
        if shape is not None and sample.shape != shape:
            raise ValueError(
                f"{self.items[position]} has the shape {tuple(sample.shape)}, the first sample {tuple(shape)}: give size=, to "
                "which all are resized"
            )
        return sample


def lazy(items: Sequence[Any], read: Callable[[Any], Tensor], *, keep: bool | None = None) -> Tensor:
    """Samples behind a function: read at once where they take little memory, else when they are asked for.

    Args:
        items: what ``read`` takes, one a sample.
        read: gives the sample of an item.
        keep: whether to read all now; None: if they take less than `KEPT_BYTES`.

    Returns:
        A tensor ``(samples, *shape)``, or `LazySamples`, which are indexed like one.
    """
    on_disk = LazySamples(items, read)
    if keep is None:
        keep = 4 * on_disk.shape.numel() < KEPT_BYTES
    # A stream only takes samples out of a source, and puts them through arithmetic: what `LazySamples` can do.
    return on_disk[:] if keep else cast(Tensor, on_disk)


def images(
    files: Sequence[Path], *, channels: Channels = 3, size: tuple[int, int] | None = None, keep: bool | None = None
) -> Tensor:
    """Image files as samples ``(samples, channels, height, width)`` in [0, 1]; see `lazy`.

    Args:
        files: one a sample.
        channels: 3 for colour, 1 for grey.
        size: height and width to resize to; None: all have the size of the first.
        keep: as of `lazy`.
    """
    return lazy(files, partial(read_image, channels=channels, size=size), keep=keep)

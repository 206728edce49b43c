"""How much of a layer an experience has rewritten."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """``|w' - w| / rms(w)``: the change of each weight, relative to the typical weight of the layer before it.

    Where all weights were 0 before, the unit is the root mean square of the change itself.

    Args:
        before: weights w, any shape.
        after: weights w', of the same shape.

    Returns:
        Of the same shape, at least 0.

    Raises:
        ValueError: different shapes, or no weights.

    Example:
        >>> relative_change(torch.tensor([2.0, -2.0]), torch.tensor([2.0, -1.0]))
        tensor([0.0000, 0.5000])
    """
    if before.shape != after.shape or before.numel() == 0:
        raise ValueError(
            "expected non-empty weights of one shape, got "
            f"{tuple(before.shape)} and {tuple(after.shape)}: compare a layer with itself, before its head has grown"
        )
    change = (after - before).abs()
    unit = before.square().mean().sqrt()
    unit = torch.where(unit > 0, unit, change.square().mean().sqrt())
    return torch.where(unit > 0, change / unit, change)


def changed_fraction(before: Tensor, after: Tensor, *, threshold: float = 0.0) -> Tensor:
    """Share of synapses that changed; one minus this is the sparsity of the change.

    Args:
        before: weights, any shape.
        after: of the same shape.
        threshold: a synapse counts as changed when its `relative_change` is above this; 0 counts every change, however
            small.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ValueError: different shapes, no weights, or a negative threshold.

    Source: the share of modified synapses in Zhang et al., Science Advances 9(34) eadi2947, 2023. They do not state how
        large a change must be to count; here the threshold is an argument.

    Example:
        >>> changed_fraction(torch.tensor([2.0, -2.0]), torch.tensor([2.0, -1.0]))
        tensor(0.5000)
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    return (relative_change(before, after) > threshold).to(before.dtype).mean()


def change_map(before: Tensor, after: Tensor, *, size: tuple[int, int] = (48, 48)) -> Tensor:
    """`relative_change` as an image: outputs down, inputs across, averaged over blocks where the layer is larger.

    Args:
        before: weights ``(outputs, inputs, ...)``; a kernel's positions count as inputs. A vector is one column.
        after: of the same shape.
        size: the largest number of rows and of columns of the map.

    Returns:
        ``(min(outputs, rows), min(inputs, columns))``; its mean equals that of the change if the blocks are of equal size.

    Raises:
        ValueError: different shapes, no weights, or a size that is not positive.

    Example:
        >>> change_map(torch.ones(2, 4), torch.tensor([[1.0, 1, 2, 2], [1, 1, 1, 1]]), size=(2, 2))
        tensor([[0., 1.],
                [0., 0.]])
    """
    if min(size) < 1:
        raise ValueError(f"a map needs at least one row and one column, got size={size}")
    change = relative_change(before, after)
    change = change.reshape(len(change), -1) if change.ndim else change.reshape(1, 1)
    rows, columns = min(size[0], change.shape[0]), min(size[1], change.shape[1])
    return F.adaptive_avg_pool2d(change[None], (rows, columns))[0]


__all__ = ["change_map", "changed_fraction", "relative_change"]

"""Convolutions as matrix products: the windows of an input that the outputs of a convolution are computed from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def windows(
    inputs: Tensor, kernel: Sequence[int], *, stride: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> Tensor:
    """What each output of a convolution without padding sees.

    Args:
        inputs: (batch, channels, *positions), with one, two or three dimensions of positions.
        kernel: size of the kernel in each of them.
        stride: of the convolution.
        dilation: of the kernel.
        groups: of channels, each with outputs of its own.

    Returns:
        (groups, batch · output positions, channels / groups · kernel positions), in the order of a convolution's weight.

    Example:
        >>> import torch
        >>> windows(torch.arange(4.0).view(1, 1, 4), [2], stride=[1], dilation=[1])
        tensor([[[0., 1.],
                 [1., 2.],
                 [2., 3.]]])
    """
    rank = len(kernel)
    seen = inputs
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        seen = seen.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    # (batch, channels, *outputs, *kernel) -> (groups, batch, *outputs, channels of the group, *kernel)
    seen = seen.unflatten(1, (groups, -1)).movedim(1, 0).movedim(2, 2 + rank)
    return seen.reshape(groups, seen.shape[1] * seen.shape[2 : 2 + rank].numel(), -1)


def upsampled(inputs: Tensor, stride: Sequence[int], margins: Sequence[tuple[int, int]]) -> Tensor:
    """The input whose ordinary convolution, by the flipped kernel, is the transposed convolution of the given one.

    Args:
        inputs: (batch, channels, *positions).
        stride: zeros are put between positions so that they come this far apart.
        margins: zeros before and after, in each dimension; negative to cut positions off.

    Returns:
        (batch, channels, *larger positions).

    Example:
        >>> import torch
        >>> upsampled(torch.tensor([[[1.0, 2.0]]]), [2], [(1, 0)])
        tensor([[[0., 1., 0., 2.]]])
    """
    sizes = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], stride, strict=True)]
    spread = inputs.new_zeros(*inputs.shape[:2], *sizes)
    spread[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = inputs
    return F.pad(spread, [margin for pair in reversed(margins) for margin in pair])

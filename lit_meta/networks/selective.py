"""A weight layer that computes only the units that a gate has opened."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# Below this a gate changes nothing that single precision would keep.
_CLOSED = 2.0**-24


class SelectiveLinear(nn.Linear):
    """`torch.nn.Linear` that can leave out rows and columns; the weights, and their names in a checkpoint, are the same.

    Example:
        >>> import torch
        >>> layer = SelectiveLinear(3, 4)
        >>> x, some = torch.rand(2, 3), torch.tensor([0, 2])
        >>> torch.allclose(layer(x, some), layer(x)[:, some])
        True
    """

    def forward(self, x: Tensor, outputs: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """(batch, in_features) -> (batch, out_features), or (batch, len(outputs)).

        Args:
            x: (batch, in_features).
            outputs: indices of the units wanted; None is all.
            inputs: indices of the inputs that are not zero; None is all.
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if outputs is not None:
            weight = weight.index_select(0, outputs)
            bias = None if bias is None else bias.index_select(0, outputs)
        if inputs is not None:
            weight, x = weight.index_select(1, inputs), x.index_select(1, inputs)
        return F.linear(x, weight, bias)


def open_units(mask: Tensor) -> Tensor | None:
    """Indices of the units that some sample of the batch has open; None where more than half are.

    Args:
        mask: a gate, (units,) or (batch, units).

    Example:
        >>> import torch
        >>> open_units(torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]]))
        tensor([1])
    """
    is_open = mask > _CLOSED
    found = (is_open.any(0) if mask.dim() == 2 else is_open).nonzero().squeeze(1)
    return found if 2 * found.numel() <= mask.shape[-1] else None

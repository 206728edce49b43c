"""A weight layer that computes only the units that a gate opens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# A gate value below this has no effect in single precision.
_CLOSED = 2.0**-24


class SelectiveLinear(nn.Linear):
    """`torch.nn.Linear` that can skip rows and columns; the weights and their names in a checkpoint are the same.

    Example:
        >>> import torch
        >>> layer = SelectiveLinear(3, 4)
        >>> x, some = torch.rand(2, 3), torch.tensor([0, 2])
        >>> torch.allclose(layer(x, some), layer(x)[:, some])
        True
    """

    def forward(self, x: Tensor, outputs: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """(batch, ..., in_features) -> (batch, ..., out_features), or (batch, ..., len(outputs)).

        Args:
            x: (batch, ..., in_features).
            outputs: indices of the units to compute; None is all.
            inputs: indices of the inputs that are not zero; None is all.
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if outputs is not None:
            weight = weight.index_select(0, outputs)
            bias = None if bias is None else bias.index_select(0, outputs)
        if inputs is not None:
            weight, x = weight.index_select(1, inputs), x.index_select(-1, inputs)
        return F.linear(x, weight, bias)


def open_units(mask: Tensor) -> Tensor | None:
    """Indices of the units that are open for some sample of the batch.

    Args:
        mask: a gate, (units,) or (batch, units).

    Returns:
        (open units,); None if more than half of the units are open, where skipping does not pay.

    Example:
        >>> import torch
        >>> open_units(torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]]))
        tensor([1])
    """
    is_open = mask > _CLOSED
    units = (is_open.any(0) if mask.dim() == 2 else is_open).nonzero().squeeze(1)
    return units if 2 * units.numel() <= mask.shape[-1] else None

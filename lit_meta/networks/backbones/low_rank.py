"""Low-rank changes of weights, trained beside frozen ones and then added to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    r"""``W + B A`` in place of a weight W, with A of random rows and B of zeros to begin with.

    Args:
        weight: (outputs, inputs), or that of a 1 x 1 convolution.
        rank: rows of A.
        generator: draws A.

    Source:
        Hu et al., "LoRA", ICLR 2022, with a scale of 1.

    Example:
        >>> change = LowRank(torch.zeros(3, 5), 2, torch.Generator().manual_seed(0))
        >>> change(torch.ones(3, 5)).equal(torch.ones(3, 5)), [tuple(p.shape) for p in change.parameters()]
        (True, [(2, 5), (3, 2)])
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        inputs = weight[0].numel()
        down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def low_rank_layers(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Linear layers and 1 x 1 convolutions without groups, by name; not those whose weight is computed already."""
    return {
        name: module
        for name, module in network.named_modules()
        if not parametrize.is_parametrized(module)
        and (
            isinstance(module, nn.Linear)
            or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1)
        )
    }


@contextmanager
def low_rank(network: nn.Module, rank: int, seed: int) -> Iterator[list[nn.Parameter]]:
    """Trains low-rank changes of all these layers inside the block, and adds them to the weights at its end.

    Yields:
        the parameters to train.
    """
    generator, layers = torch.Generator().manual_seed(seed), list(low_rank_layers(network).values())
    parameters: list[nn.Parameter] = []
    try:
        for layer in layers:
            change = LowRank(layer.weight, rank, generator)
            parametrize.register_parametrization(layer, "weight", change)
            parameters += change.parameters()
        yield parameters
    finally:
        for layer in layers:
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight")

"""What hidden blocks learn from local errors, from the backward pass until the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_meta.core.block_hooks import LayerWatch
from lit_meta.core.rule import Layer, Rule, Synapses


class LocalGradients:
    """Gradients by parameter name that are not yet in ``parameter.grad``; those of several batches add up."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def learn(
        self,
        watch: LayerWatch,
        rule: Rule,
        local_error: Callable[[Layer, Tensor, Tensor], Tensor],
        targets: Tensor | None,
        loss_divisor: float,
    ) -> None:
        """Adds the gradients of all hidden blocks that the forward pass has left.

        Args:
            watch: that has seen the forward pass.
            rule: brings the local errors.
            local_error: the rule's `Rule.local_error`, as the session calls it.
            targets: class labels, (batch,).
            loss_divisor: what the host divided the loss by.

        Raises:
            ValueError: there are no labels, or a local error is wrong.
        """
        if targets is None:
            raise ValueError(f"{type(rule).__name__} needs labels, and the batch has none")

        def error(layer: Layer, output: Tensor) -> Tensor:
            return local_error(layer, output, targets)

        for name, gradient in watch.local_gradients(error, 1.0 / loss_divisor).items():
            held = self._held.get(name)
            self._held[name] = gradient if held is None else held.add_(gradient)

    def hand_over(self, synapses: Synapses) -> None:
        """Puts the gradients of some parameters where their optimizer finds them."""
        if not self._held:
            return
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            gradient = self._held.pop(name, None)
            if gradient is None:
                continue
            if distributed:
                # The reducer of DDP sees only what the loss reaches, so local gradients are averaged here.
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
            gradient = gradient.to(parameter.dtype)
            # What the loss itself says of a hidden parameter, such as a penalty on its size, counts beside the local error.
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def clear(self) -> None:
        """Forgets them."""
        self._held = {}

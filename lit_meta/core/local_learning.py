"""Gradients of hidden blocks from local errors, stored from the backward pass until the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_meta.core.block_hooks import LayerWatch
from lit_meta.core.rule import Layer, Rule, Synapses


class LocalGradients:
    """Gradients by parameter name that are not yet in ``parameter.grad``; those of several batches are summed."""

    def __init__(self) -> None:
        self._gradients: dict[str, Tensor] = {}

    def learn(
        self,
        watch: LayerWatch,
        rule: Rule,
        local_error: Callable[[Layer, Tensor, Tensor], Tensor],
        targets: Tensor | None,
        loss_divisor: float,
    ) -> None:
        """Adds the gradients of all hidden blocks of the last forward pass.

        Args:
            watch: the hooks that recorded the forward pass.
            rule: the rule that computes the local errors, named in messages.
            local_error: the rule's `Rule.local_error`, as the session calls it.
            targets: class labels, (batch,).
            loss_divisor: the number by which the host divided the loss.

        Raises:
            ValueError: there are no labels, or a local error has the wrong shape.
        """
        if targets is None:
            raise ValueError(f"{type(rule).__name__} needs labels, and the batch has none")

        def error(layer: Layer, output: Tensor) -> Tensor:
            return local_error(layer, output, targets)

        for name, gradient in watch.local_gradients(error, 1.0 / loss_divisor).items():
            total = self._gradients.get(name)
            self._gradients[name] = gradient if total is None else total.add_(gradient)

    def hand_over(self, synapses: Synapses) -> None:
        """Adds the gradients to ``parameter.grad`` of the given parameters, before their optimizer's step."""
        if not self._gradients:
            return
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            gradient = self._gradients.pop(name, None)
            if gradient is None:
                continue
            if distributed:
                # DDP reduces only the gradients of the loss, so local gradients are averaged here.
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
            gradient = gradient.to(parameter.dtype)
            # A gradient of the loss itself, such as of a penalty on a hidden parameter, adds to the local one.
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def clear(self) -> None:
        """Discards all gradients."""
        self._gradients = {}

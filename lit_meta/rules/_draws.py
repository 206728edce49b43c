"""Gradients of one batch at further draws of the weights, as one batched product where PyTorch can, or else one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.rule import Experience, Synapses

# Gradients that should be the same agree to this share of their norm, also under mixed precision.
_TOLERANCE = 0.05


class FurtherDraws:
    """Runs the training step's loss of a batch at further draws of the weights; remembers how, network by network."""

    def __init__(self) -> None:
        self._checked: nn.Module | None = None
        self._batched = False

    def checked(
        self,
        synapses: Synapses,
        batch: Experience,
        noise: list[Tensor],
        deviations: list[Tensor],
        gradients: list[Tensor],
        divisor: float,
    ) -> list[Tensor]:
        """The host's gradients of its draw, as they are; with the first batch of a network it is checked that
        the loss that is known is the one that the host has differentiated.

        Raises:
            ValueError: it is not.
        """
        if self._checked is synapses.network:
            return [g.clone() for g in gradients]
        again = [_one(synapses, batch, noise, deviations) for _ in range(2)]
        if _near(*again):  # Otherwise the network draws random numbers of its own, and no two passes agree.
            if not _near(again[0], [g * divisor for g in gradients]):
                raise ValueError(
                    "several draws of the weights need the loss that is differentiated, and that of the host gives another "
                    "gradient: name it, as Session(network, rule, loss=...), or use draws=1"
                )
            self._batched = _near(again[0], _tried(synapses, batch, noise, deviations))
        else:
            self._batched = False
        self._checked = synapses.network
        return [g.clone() for g in gradients]

    def __call__(
        self, synapses: Synapses, batch: Experience, noises: list[Tensor], deviations: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Sums over draws of the gradients g of the loss at μ + σ ε, and of g ε; μ is in the network before and after.

        Args:
            synapses: whose parameters are μ.
            batch: of the step.
            noises: ε of each parameter, (draws, ...).
            deviations: σ.
        """
        draws = noises[0].shape[0]
        if self._batched and draws > 1:
            gradients = _together(synapses, batch, noises, deviations)
            sums = [g.sum(0) for g in gradients]
            torch._foreach_mul_(gradients, noises)
            return sums, [g.sum(0) for g in gradients]
        sums = [torch.zeros_like(d) for d in deviations]
        products = [torch.zeros_like(d) for d in deviations]
        for noise in zip(*(parts.unbind() for parts in noises), strict=True):
            each = _one(synapses, batch, list(noise), deviations)
            torch._foreach_add_(sums, each)
            torch._foreach_addcmul_(products, each, list(noise))
        return sums, products


def _one(synapses: Synapses, batch: Experience, noise: list[Tensor], deviations: list[Tensor]) -> list[Tensor]:
    parameters = [p.detach() for p in synapses.parameters]
    means = [p.clone() for p in parameters]
    torch._foreach_addcmul_(parameters, noise, deviations)
    try:
        with batch.training():
            loss = batch.loss(next(iter(batch.batches())))
            gradients = torch.autograd.grad(loss, synapses.parameters, allow_unused=True, materialize_grads=True)
    finally:
        torch._foreach_copy_(parameters, means)
    return list(gradients)


def _together(synapses: Synapses, batch: Experience, noise: list[Tensor], deviations: list[Tensor]) -> list[Tensor]:
    """Gradients of the cross-entropy at several draws, (draws, ...)."""
    inputs, targets = next(iter(batch))
    if targets is None:
        raise ValueError("the cross-entropy needs labels")
    labels = targets

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        output: Any = torch.func.functional_call(synapses.network, parameters, (inputs,))
        return F.cross_entropy(output, labels)

    drawn = {
        name: torch.addcmul(parameter.detach(), deviation, epsilon).requires_grad_()
        for name, parameter, deviation, epsilon in zip(
            synapses.names, synapses.parameters, deviations, noise, strict=True
        )
    }
    # Each loss depends on its own draw alone, so the gradient of their sum is that of each.
    losses = torch.func.vmap(loss)(drawn)
    return list(torch.autograd.grad(losses.sum(), list(drawn.values()), allow_unused=True, materialize_grads=True))


def _tried(synapses: Synapses, batch: Experience, noise: list[Tensor], deviations: list[Tensor]) -> list[Tensor] | None:
    if batch.named_form != "cross_entropy":
        return None
    try:
        return [g[0] for g in _together(synapses, batch, [e[None] for e in noise], deviations)]
    except Exception:
        return None  # A network that PyTorch cannot take through a batch of weights.


def _near(one: list[Tensor], other: list[Tensor] | None) -> bool:
    if other is None:
        return False
    scale = sum(float(g.square().sum()) for g in one)
    difference = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
    return difference <= _TOLERANCE**2 * scale

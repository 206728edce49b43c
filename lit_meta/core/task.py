"""The loss of a host's training step, to be computed again outside training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.core.batches import BatchFunction
from lit_meta.core.trees import tensors
from lit_meta.core.untouched import state_kept

Form = Literal["cross_entropy", "mse"]
Criterion = Callable[[Any, Any], Tensor]


class NoOneLoss(ValueError):
    """A training step has no loss of a batch, or of each of its samples, that could be differentiated.

    Args:
        reason: why.
        named: what to do with a rule that can be told which loss it is.
        otherwise: what to do with another.
    """

    def __init__(self, reason: str, *, named: str, otherwise: str) -> None:
        super().__init__(reason)
        self.named, self.otherwise = named, otherwise

    def advice(self, rule: object) -> str:
        """What to do with this rule."""
        return self.named if getattr(rule, "loss", None) == "task" else self.otherwise


class Task(Protocol):
    """The loss that a host's training step computes.

    Attributes:
        owner: the module whose code computes the loss; the network itself, or a module that contains it.
        form: the loss as a function of ``network(inputs)`` and the targets, if the host knows it to be the cross-entropy of
            classes or half the squared distance to the one-hot label; None if it may be anything.
        plain: whether the step is known to call ``network(inputs)``.
        inseparable: why a row of every tensor in a batch is not one sample; None if it is.
    """

    owner: nn.Module
    form: Form | None
    plain: bool

    @property
    def inseparable(self) -> NoOneLoss | None: ...

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch, a scalar with its graph.

        Raises:
            ValueError: the step returns no loss that can be differentiated.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """A context for computing the loss outside training, in which the host neither logs nor steps."""
        ...


class PlainTask:
    """A criterion of ``network(inputs)`` and targets.

    Args:
        network: the network.
        unpack: splits a batch into (inputs, targets).
        criterion: a function of outputs and targets; None for the cross-entropy.

    Example:
        >>> task = PlainTask(nn.Linear(2, 1), lambda batch: batch, nn.MSELoss())
        >>> task.loss((torch.zeros(3, 2), torch.zeros(3, 1))).shape, task.form
        (torch.Size([]), None)
    """

    plain = True
    inseparable: NoOneLoss | None = None

    def __init__(self, network: nn.Module, unpack: BatchFunction, criterion: Criterion | None = None) -> None:
        self.owner = network
        self.form: Form | None = "cross_entropy" if criterion is None else None
        self._unpack = unpack
        self._criterion: Criterion = F.cross_entropy if criterion is None else criterion

    def loss(self, batch: Any) -> Tensor:
        inputs, targets = self._unpack(batch)
        return self._criterion(self.owner(inputs), targets)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def recorded_outputs(network: nn.Module, owner: nn.Module) -> Iterator[list[Tensor]]:
    """Records a network's outputs of all calls inside the block.

    Yields:
        The floating-point tensors in its outputs; of an output with ``logits``, these alone. If the network is the owner and
        its code calls its submodules without calling itself, the outputs of the last outermost submodule that was called.
    """
    outputs: list[Tensor] = []
    handles = [network.register_forward_hook(lambda module, arguments, output: outputs.extend(_predictions(output)))]
    depth = 0
    last: list[Tensor] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            last[:] = _predictions(output)

    if network is owner:
        for name, part in network.named_modules():
            if name:
                handles.append(part.register_forward_pre_hook(enter))
                handles.append(part.register_forward_hook(leave))
    try:
        yield outputs
        if not outputs:
            outputs.extend(last)
    finally:
        for handle in handles:
            handle.remove()


def _predictions(output: Any) -> list[Tensor]:
    logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    candidates = [logits] if isinstance(logits, Tensor) else tensors(output)
    return [tensor for tensor in candidates if tensor.is_floating_point() and tensor.dim()]


def class_logits(outputs: object) -> bool:
    """Whether outputs are one score for each of several classes, (batch, classes)."""
    return isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1


def is_cross_entropy(
    loss: Callable[[Any], Tensor], network: nn.Module, unpack: BatchFunction, batch: Any, *, gradients: bool = True
) -> bool:
    """Whether the loss of a batch, and its gradient, are those of the cross-entropy of ``network(inputs)`` and labels.

    Args:
        loss: computes the loss of a batch.
        network: the network.
        unpack: splits the batch into (inputs, targets).
        batch: as the training step receives it.
        gradients: compare gradients too, not only values.
    """
    try:
        inputs, targets = unpack(batch)
        if targets is None or targets.dim() != 1 or targets.is_floating_point() or targets.dtype == torch.bool:
            return False
        if bool((targets < 0).any()):
            return False  # Samples that the loss leaves out.
        state = torch.get_rng_state()
        with state_kept(network):
            outputs = network(inputs)
        if not class_logits(outputs):
            return False
        expected = F.cross_entropy(outputs, targets)
        torch.set_rng_state(state)
        parameters = [p for p in network.parameters() if p.requires_grad] if gradients else []
        return _same(expected, loss(batch), parameters)
    except Exception:
        return False  # It is some other loss, which raises its own errors when it is computed.


def _same(expected: Tensor, loss: Tensor, parameters: list[nn.Parameter]) -> bool:
    tolerance = 0.02 if expected.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if not torch.allclose(expected.detach(), loss.detach().to(expected.dtype), rtol=tolerance, atol=tolerance * 1e-2):
        return False
    if not parameters:
        return True
    gradients = (torch.autograd.grad(scalar, parameters, allow_unused=True) for scalar in (expected, loss))
    for first, second in zip(*gradients, strict=True):
        if first is None or second is None:
            present = first if second is None else second
            if present is not None and bool(present.any()):
                return False
        elif not torch.allclose(first, second, rtol=10 * tolerance, atol=tolerance * float(first.abs().max())):
            return False
    return True

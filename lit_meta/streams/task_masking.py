"""Task-incremental learning with one head: all outputs but those of a sample's own task are masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_meta.data.benchmark import Benchmark, LabelledBenchmark, stream_classes, tells_tasks
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.module import MetaplasticModule

# The logit of a masked class: its exponential and its gradient are 0, and half precision can represent it.
CLOSED = -1e4


@contextmanager
def only_classes(network: nn.Module, allowed: Tensor) -> Iterator[None]:
    """Masks outputs of a network: a masked class has probability 0, is never predicted and learns nothing.

    Args:
        network: returns logits (batch, classes).
        allowed: bool, (classes,), or (batch, classes) for one batch.

    Raises:
        ValueError: in a forward pass, outputs have another width.

    Example:
        >>> network = nn.Identity()
        >>> with only_classes(network, torch.tensor([False, True, True])):
        ...     network(torch.tensor([[3.0, 1.0, 2.0]])).softmax(1).round(decimals=2)
        tensor([[0.0000, 0.2700, 0.7300]])
    """

    def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        if output.shape[-1] != allowed.shape[-1]:
            raise ValueError(
                f"the scenario has {allowed.shape[-1]} classes, but the network {output.shape[-1]} outputs"
            )
        return output.masked_fill(~allowed.to(output.device), CLOSED)

    handle = network.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class TaskOutputs:
    """Masks, in training and testing, all outputs but those of a sample's own experience.

    Args:
        module: the module whose network's outputs are masked.
        train: the classes of each training experience. An experience with all classes, as of the joint bound, is learned
            without a mask.
        test: the classes of each test experience.
        classes: number of outputs of the network.

    Raises:
        TypeError: a LightningModule that is not a `MetaplasticModule`: the layer of its outputs is unknown.
        ValueError: a loss other than the cross-entropy, for which a masked output would be an error to learn from; or a rule
            with local errors.
    """

    def __init__(
        self, module: L.LightningModule, *, train: Sequence[list[int]], test: Sequence[list[int]], classes: int
    ) -> None:
        if not isinstance(module, MetaplasticModule):
            raise TypeError(
                f"a task-incremental stream masks outputs of a MetaplasticModule's network, got {type(module).__name__}"
            )
        rules = () if module.plasticity is None else module.plasticity.rules
        if module.loss is not LOSSES["cross_entropy"] or any(rule.overrides("local_error") for rule in rules):
            raise ValueError(
                "a task-incremental stream masks the outputs of other tasks' classes, which needs the loss 'cross_entropy' "
                "and rules without local errors"
            )
        self._network = module.network
        self._train, self._test = _table(train, classes), _table(test, classes)

    def learning(self, experience: int) -> AbstractContextManager[None]:
        """The mask for learning and consolidating a training experience."""
        return only_classes(self._network, self._train[experience])

    def context(self, experiences: Tensor) -> AbstractContextManager[None]:
        """The mask for testing a batch; ``experiences`` (batch,) are the positions of its samples' experiences."""
        return only_classes(self._network, self._test[experiences])


def task_outputs(module: L.LightningModule, benchmark: Benchmark) -> TaskOutputs | None:
    """The masks of a task-incremental benchmark; None for any other.

    Raises:
        TypeError, ValueError: the module cannot learn such a stream; see `TaskOutputs`.
    """
    if not (isinstance(benchmark, LabelledBenchmark) and tells_tasks(benchmark)):
        return None
    train, test = stream_classes(benchmark.train_stream), stream_classes(benchmark.test_stream)
    return TaskOutputs(module, train=train, test=test, classes=benchmark.classes)


def _table(groups: Sequence[list[int]], classes: int) -> Tensor:
    allowed = torch.zeros(len(groups), classes, dtype=torch.bool)
    for row, labels in zip(allowed, groups, strict=True):
        row[labels] = True
    return allowed

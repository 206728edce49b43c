"""Task-incremental learning with one head: only the outputs of a sample's own task are open."""

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

# As a logit: its exponential is 0, its gradient too, and half precision can hold it.
CLOSED = -1e4


@contextmanager
def only_classes(network: nn.Module, allowed: Tensor) -> Iterator[None]:
    """Closes outputs of a network: a closed class has no probability, is never predicted and learns nothing.

    Args:
        network: gives logits (batch, classes).
        allowed: bool, (classes,), or (batch, classes) for one batch.

    Raises:
        ValueError: at a forward pass, outputs of another width.

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
    """Opens, in learning and in testing, the outputs of a sample's own experience alone.

    Args:
        module: whose network's outputs are closed.
        train: the classes of each training experience. One that holds all classes, as of the joint bound, learns with all
            outputs open.
        test: the classes of each test experience.
        classes: outputs of the network.

    Raises:
        TypeError: a LightningModule that is no `MetaplasticModule`: where its outputs are made is not known.
        ValueError: another loss than the cross-entropy, for which a closed output would be an error to learn from; or a rule
            with local errors.
    """

    def __init__(
        self, module: L.LightningModule, *, train: Sequence[list[int]], test: Sequence[list[int]], classes: int
    ) -> None:
        if not isinstance(module, MetaplasticModule):
            raise TypeError(
                f"a stream that tells tasks closes outputs of a MetaplasticModule's network, got {type(module).__name__}"
            )
        rules = () if module.plasticity is None else module.plasticity.rules
        if module.loss is not LOSSES["cross_entropy"] or any(rule.overrides("local_error") for rule in rules):
            raise ValueError(
                "a stream that tells tasks closes the outputs of other tasks' classes, which has a meaning for the loss "
                "'cross_entropy' and for rules without local errors only"
            )
        self._network = module.network
        self._train, self._test = _table(train, classes), _table(test, classes)

    def learning(self, experience: int) -> AbstractContextManager[None]:
        """While a training experience is learned and consolidated."""
        return only_classes(self._network, self._train[experience])

    def context(self, experiences: Tensor) -> AbstractContextManager[None]:
        """While a batch is tested; ``experiences`` (batch,) are the positions of its samples' experiences."""
        return only_classes(self._network, self._test[experiences])


def task_outputs(module: L.LightningModule, benchmark: Benchmark) -> TaskOutputs | None:
    """What opens the outputs of a sample's task alone, where the benchmark tells tasks; None where it does not.

    Raises:
        TypeError, ValueError: the module cannot learn such a stream; see `TaskOutputs`.
    """
    if not (isinstance(benchmark, LabelledBenchmark) and tells_tasks(benchmark)):
        return None
    train, test = stream_classes(benchmark.train_stream), stream_classes(benchmark.test_stream)
    return TaskOutputs(module, train=train, test=test, classes=benchmark.classes)


def _table(groups: Sequence[list[int]], classes: int) -> Tensor:
    found = torch.zeros(len(groups), classes, dtype=torch.bool)
    for row, labels in zip(found, groups, strict=True):
        row[labels] = True
    return found

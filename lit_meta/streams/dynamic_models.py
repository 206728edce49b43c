"""Avalanche models that grow with the stream or receive the task of a sample."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class DynamicModel:
    """The parts of a module that are Avalanche's dynamic and multi-task modules, treated as its strategies treat them.

    Before an experience is learned or tested, modules such as ``IncrementalClassifier`` gain the units it needs. A multi-task
    module that the module's own code calls with inputs alone gets the task labels of the experience besides.

    Args:
        module: with or without such parts.
        train: the training experiences of the stream.
        test: the test experiences of the stream.
        seed: of the initial weights of new units.

    Raises:
        ValueError: a multi-task module, and an experience of several tasks.
    """

    def __init__(self, module: nn.Module, *, train: Sequence[Any], test: Sequence[Any], seed: int) -> None:
        self._module = module
        self._train, self._test = list(train), list(test)
        self._seed = seed
        self._grows = False
        self._multi_task: list[nn.Module] = []
        if "avalanche" not in sys.modules:  # Then no module can be one of Avalanche's.
            return
        from lit_meta.integrations.avalanche import grows, multi_task_modules

        self._grows = grows(module)
        self._multi_task = multi_task_modules(module)
        if self._multi_task:
            self._train_labels, self._test_labels = _labels(self._train), _labels(self._test)

    @property
    def tells_tasks(self) -> bool:
        """Whether the model receives the task of every test sample."""
        return bool(self._multi_task)

    def grow(self, experience: int) -> None:
        """Gives the model what it needs to learn an experience."""
        if self._grows:
            self._adapt([self._train[experience]], training=True, seed=self._seed + experience)

    def grow_for_test(self) -> None:
        """Gives the model an output for everything that it is tested on."""
        if self._grows:
            self._adapt(self._test, training=False, seed=self._seed)

    def regrow(self, learned: int) -> None:
        """Brings a fresh model to the size that it had when ``learned`` experiences were learned and tested."""
        self.grow_for_test()
        for experience in range(learned):
            self.grow(experience)

    @contextmanager
    def learning(self, experience: int) -> Iterator[None]:
        """Within the block, calls are of samples of this training experience."""
        with self._with_tasks(self._train_labels[experience] if self._multi_task else 0):
            yield

    @contextmanager
    def testing(self, experiences: Tensor) -> Iterator[None]:
        """Within the block, calls are of samples of these test experiences, (batch,)."""
        with self._with_tasks(torch.tensor(self._test_labels)[experiences] if self._multi_task else 0):
            yield

    @contextmanager
    def _with_tasks(self, labels: int | Tensor) -> Iterator[None]:
        def tell(module: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if len(arguments) == 1 and "task_labels" not in named:
                here = labels.to(arguments[0].device) if isinstance(labels, Tensor) else labels
                named = {**named, "task_labels": here}
            return arguments, named

        handles = [m.register_forward_pre_hook(tell, with_kwargs=True) for m in self._multi_task]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adapt(self, experiences: Sequence[Any], *, training: bool, seed: int) -> None:
        from lit_meta.integrations.avalanche import adapt

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapt(self._module, experiences, training=training)


def _labels(stream: Sequence[Any]) -> list[int]:
    labels = []
    for position, experience in enumerate(stream):
        tasks = sorted({int(label) for label in experience.task_labels})
        if len(tasks) != 1:
            raise ValueError(
                f"experience {position} has samples of the tasks {tasks}, and a multi-task module receives one task for an "
                "experience: use a benchmark of one task an experience"
            )
        labels.append(tasks[0])
    return labels

"""Streams as Lightning data modules, and data modules as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_meta.data.benchmark import Benchmark
from lit_meta.data.module import ExperienceDataModule
from lit_meta.data.tensors import tensor_benchmark


def to_data_modules(benchmark: Benchmark, *, batch_size: int = 128, seed: int = 0) -> list[ExperienceDataModule]:
    """A Lightning data module for each training experience; each tests on all test experiences.

    Args:
        benchmark: any benchmark.
        batch_size: samples in a batch.
        seed: of the order of training samples.

    Example:
        >>> from lit_meta import scenario
        >>> modules = to_data_modules(scenario("split-digits", experiences=2))
        >>> len(modules), len(modules[0].test_dataloader())
        (2, 2)
    """
    tests = list(benchmark.test_stream)
    return [ExperienceDataModule(e, tests, batch_size=batch_size, seed=seed) for e in benchmark.train_stream]


def from_data_modules(
    modules: Sequence[L.LightningDataModule], *, name: str = "data modules", form: str = "class"
) -> Any:
    """A benchmark whose training experiences are the training data of Lightning data modules, read once into memory.

    Test experiences are those of the modules' ``test_dataloader``: one for each module, or, where it returns several loaders,
    those of the first module, which are then taken to be the whole test stream.

    Args:
        modules: in the order of the stream; their batches are pairs of samples and integer labels.
        name: of the benchmark.
        form: as of `lit_meta.data.tensor_benchmark`.

    Raises:
        TypeError: batches of another form.
        ValueError: no modules, or a loader without batches.

    Example:
        >>> from lit_meta import scenario
        >>> benchmark = from_data_modules(to_data_modules(scenario("split-digits", experiences=5)))
        >>> len(benchmark.train_stream), len(benchmark.test_stream), benchmark.classes
        (5, 5, 10)
    """
    if not modules:
        raise ValueError("a stream needs at least one data module")
    train, test = [], []
    for position, module in enumerate(modules):
        module.prepare_data()
        module.setup("fit")
        train.append(_samples(module.train_dataloader(), f"data module {position}: train_dataloader"))
        module.setup("test")
        loaders = module.test_dataloader()
        several = isinstance(loaders, (list, tuple))
        if position == 0 or not several:
            what = f"data module {position}: test_dataloader"
            test += [_samples(loader, what) for loader in (loaders if several else [loaders])]
    return tensor_benchmark(train, test, name=name, form=form)


def _samples(loader: Iterable[Any], what: str) -> tuple[Tensor, Tensor]:
    samples, labels = [], []
    for batch in loader:
        if not (isinstance(batch, (list, tuple)) and len(batch) >= 2 and all(isinstance(p, Tensor) for p in batch[:2])):
            raise TypeError(f"{what} must give batches (samples, labels) of tensors, got {type(batch).__name__}")
        samples.append(batch[0])
        labels.append(batch[1])
    if not samples:
        raise ValueError(f"{what} gives no batches")
    return torch.cat(samples), torch.cat(labels)

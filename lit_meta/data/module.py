"""Experiences as tensors, and as a Lightning data module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from lit_meta.data.tensors import bulk_view
from lit_meta.utils.arguments import require_count

# Primes, so that nearby (seed, experience, epoch) never share a generator's seed.
_SEED_STRIDE = 1_000_003
_EPOCH_STRIDE = 7_368_787


def experience_tensors(experience: Any) -> tuple[Tensor, Tensor]:
    """All samples and labels of an experience.

    Experiences of `lit_meta.data.scenarios` are read in one indexing operation, those of any other Avalanche
    benchmark item by item, through the transforms of their data set.

    Args:
        experience: an Avalanche experience.

    Returns:
        Samples ``(samples, *shape)`` and labels, int64, ``(samples,)``, in the order of the data set.

    Raises:
        ValueError: if the experience has no samples.
        TypeError: if its samples are not tensors and cannot be stacked into one.

    Example:
        >>> from lit_meta.data import scenario
        >>> x, y = experience_tensors(scenario("split-digits", class_order=range(10)).test_stream[3])
        >>> x.shape, y.unique()
        (torch.Size([37, 1, 8, 8]), tensor([3]))
    """
    if len(experience.dataset) == 0:
        raise ValueError("the experience has no samples; leave it out of the stream")
    view = bulk_view(experience)
    if view is not None:
        return view.tensors()
    loader = DataLoader(experience.dataset, batch_size=512, collate_fn=_samples_and_labels, generator=torch.Generator())
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def experience_index(trainer: lightning.Trainer, fits: int) -> int:
    """The position of the experience in its stream if the data module knows it, else the number of earlier fits."""
    experience = getattr(getattr(trainer, "datamodule", None), "train_experience", None)
    index = getattr(experience, "current_experience", None)
    return fits if index is None else int(index)


class ExperienceDataModule(lightning.LightningDataModule):
    """One experience to train on, and a stream of experiences to test on.

    The order of the training samples comes from a separate generator, seeded by ``seed`` and by the position of
    the experience in its stream. It neither depends on the global generator nor changes it, and is the same
    every time the loader is created; the epochs of one loader differ. (In distributed training, Lightning
    replaces the shuffling by its own `DistributedSampler`.) The last batch of an epoch may be smaller than the
    others.

    Batches of experiences of `lit_meta.data.scenarios` are read from their tensor in a single indexing
    operation, so loader workers would only add cost; Lightning's advice to use more of them does not apply
    here, and is filtered where the stream is run. Experiences of other Avalanche benchmarks are read item by
    item, anew in every epoch, so that random transforms stay random.

    Args:
        train_experience: the experience to train on.
        test_stream: the experiences to test on.
        batch_size: samples per batch, for training and for testing.
        seed: determines the order of the training samples.
        shuffle: whether to draw the training samples in random order.

    Raises:
        ValueError: if ``batch_size`` is not a positive integer, if the test stream is empty, or if an
            experience has no samples.

    Example:
        >>> from lit_meta.data import scenario
        >>> benchmark = scenario("split-digits", experiences=5)
        >>> data = ExperienceDataModule(benchmark.train_stream[0], benchmark.test_stream, batch_size=64)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, len(data.test_dataloader())
        (torch.Size([64, 1, 8, 8]), 5)
    """

    def __init__(
        self,
        train_experience: Any,
        test_stream: Iterable[Any],
        *,
        batch_size: int = 128,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        require_count("batch_size", batch_size)
        self.train_experience = train_experience
        self.test_experiences = tuple(test_stream)
        if not self.test_experiences:
            raise ValueError("expected at least one experience to test on, got an empty stream")
        for experience in (train_experience, *self.test_experiences):
            if len(experience.dataset) == 0:
                raise ValueError("an experience has no samples; leave it out of the stream")
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle

    def train_dataloader(self) -> DataLoader:
        """Batches ``(x, y)`` of the training experience."""
        if not self.shuffle:
            return self._loader(self.train_experience, None)
        # An experience hides its position in training mode; its logging mode shows everything.
        position = self.train_experience.logging().current_experience
        size = len(self.train_experience.dataset)
        return self._loader(self.train_experience, EpochSampler(size, seed=self.seed + _SEED_STRIDE * position))

    def test_dataloader(self) -> list[DataLoader]:
        """One loader of batches ``(x, y)`` for each test experience, in order."""
        return [self._loader(experience, None) for experience in self.test_experiences]

    def _loader(self, experience: Any, sampler: EpochSampler | None) -> DataLoader:
        view = bulk_view(experience)
        collate: Callable[[Any], tuple[Tensor, Tensor]] = _samples_and_labels if view is None else _as_it_is
        return DataLoader(
            experience.dataset if view is None else view,
            batch_size=self.batch_size,
            sampler=sampler,
            # Every iteration over a loader draws one number. A separate generator leaves the global one, and
            # with it training, unchanged.
            generator=torch.Generator(),
            collate_fn=collate,
        )


class EpochSampler(Sampler[int]):
    """A random order that depends only on a seed and the epoch, however often a Trainer starts iterating.

    Lightning announces each epoch by `set_epoch`; if it is never called, every iteration counts as an epoch.

    Args:
        size: number of samples.
        seed: of the orders.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> first, second = list(sampler), list(sampler)
        >>> sampler.set_epoch(0); list(sampler) == first != second
        True
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._epoch = 0
        self._announced = False

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self._epoch = epoch
        self._announced = True

    def order(self, epoch: int) -> list[int]:
        """The order of one epoch."""
        generator = torch.Generator().manual_seed((self.seed + _EPOCH_STRIDE * epoch) % 2**63)
        return torch.randperm(self.size, generator=generator).tolist()  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch
        if not self._announced:
            self._epoch += 1
        return iter(self.order(epoch))


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def _samples_and_labels(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Stacks the first two parts of Avalanche's items (sample, label, task label)."""
    x = default_collate([item[0] for item in items])
    if not isinstance(x, Tensor):
        raise TypeError(f"expected samples that stack into one tensor, got {type(x).__name__}")
    return x, torch.as_tensor([int(item[1]) for item in items])

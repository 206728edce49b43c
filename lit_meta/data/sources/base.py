"""The definition of a data source, the folder of the data sets, and the error for missing data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.sources.catalog import Facts
from lit_meta.utils.paths import cache_folder as cache_folder
from lit_meta.utils.paths import data_root as data_root


@dataclass(frozen=True, eq=False)
class Source:
    """A labelled data set, split into training and test samples.

    The tensors are shared by everything that loads the same source in one process: treat them as read-only.

    Attributes:
        name: its name in `load_source`.
        train_x: training samples, float32 in [0, 1], ``(samples, *shape)``.
        train_y: training labels, int64, ``(samples,)``.
        test_x: test samples, float32 in [0, 1], ``(samples, *shape)``.
        test_y: test labels, int64, ``(samples,)``.
        classes: the name of every label, in the order of the labels.
        held_out_x: the test samples that come from the official *training* set (CIFAR-10), or ``None``.
        held_out_y: the labels of ``held_out_x``, or ``None``.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    held_out_x: Tensor | None = None
    held_out_y: Tensor | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train_x.shape[1:])


class MissingDataError(FileNotFoundError):
    """Data that are not on this machine.

    Attributes:
        expected: the missing data and where they were looked for.
    """

    expected = ""


def missing(what: str, where: Path, how: str) -> MissingDataError:
    """Builds the error for missing data.

    Args:
        what: the data.
        where: the expected file or folder.
        how: how to get the data, a sentence without a full stop.

    Returns:
        The exception, for the caller to raise.
    """
    expected = f"{what} not found: expected {where}"
    error = MissingDataError(
        f"{expected}. {how}. The folder searched is the argument root= or, without it, the environment variable "
        "LIT_META_DATA."
    )
    error.expected = expected
    return error


Loader = TypeVar("Loader", bound=Callable[..., Source])


def described(facts: Facts) -> Callable[[Loader], Loader]:
    """Declares what ``lit-meta sources`` says of a source of another package without loading it.

    Args:
        facts: of the source.

    Example:
        >>> @described(Facts(classes=10, train=100, test=20, shape=(3,), licence="MIT", homepage="", files=("mine",)))
        ... def load_mine(root): ...
        >>> load_mine.facts.classes
        10
    """

    def declare(load: Loader) -> Loader:
        load.facts = facts  # type: ignore[attr-defined]
        return load

    return declare


def stratified_split(
    y: Tensor, fraction: float, generator: torch.Generator, *, classes: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Splits indices in two, class by class.

    Args:
        y: labels, ``(samples,)``.
        fraction: the share of every class that goes to the second part, between 0 and 1 (exclusive).
        generator: selects the samples; nothing else influences the split.
        classes: names of the labels, for the message.

    Returns:
        The sorted indices of the first and of the second part.

    Raises:
        ValueError: if the fraction is out of range, or leaves a class without a sample on either side.

    Example:
        >>> y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> first, second = stratified_split(y, 0.25, torch.Generator().manual_seed(0))
        >>> y[first].tolist(), y[second].tolist()
        ([0, 0, 0, 1, 1, 1], [0, 1])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"expected a fraction between 0 and 1 (exclusive), got {fraction}")
    first, second = [], []
    for label in y.unique().tolist():
        members = (y == label).nonzero().flatten()
        count = round(fraction * len(members))
        if not 0 < count < len(members):
            name = repr(classes[label]) if classes is not None and label < len(classes) else label
            raise ValueError(
                f"a fraction of {fraction} puts {count} of the {len(members)} samples of class {name} on one side; "
                "choose a fraction that leaves some on both"
            )
        members = members[torch.randperm(len(members), generator=generator)]
        second.append(members[:count])
        first.append(members[count:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def check_class_names(classes: Sequence[str] | None, where: str) -> None:
    """Checks that every class has a name of its own; None has nothing to check.

    Raises:
        ValueError: names that are no text, are empty or repeat.

    Example:
        >>> check_class_names(("cat", "dog", "cat"), "pets")
        Traceback (most recent call last):
        ...
        ValueError: pets: 'cat' is the name of two classes, 0 and 2: give each its own
    """
    if classes is None:
        return
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{where}: classes must be a list of names as text, got {classes!r}")
    for position, name in enumerate(classes):
        if not name.strip():
            raise ValueError(f"{where}: class {position} has an empty name")
        if name in classes[:position]:
            raise ValueError(
                f"{where}: {name!r} is the name of two classes, {list(classes).index(name)} and {position}: give each its own"
            )


def unit_interval(images: np.ndarray) -> Tensor:
    """Bytes from 0 to 255 as float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).div_(255)

"""What is wrong with somebody's own data, in one sentence that names the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.lazy_samples import LazySamples
from lit_meta.data.sources.base import Source, check_class_names, stratified_split

SPLIT_SEED = 0  # Of the split where the data have none; never change it, since results depend on it.

# The share of every class that is tested on, where the data come without a test set.
TEST = 0.2


def existing(path: str | Path, what: str) -> Path:
    """The path, with ``~`` resolved.

    Raises:
        FileNotFoundError: there is nothing there.
    """
    resolved = Path(path).expanduser()
    if not resolved.exists():
        raise FileNotFoundError(f"there is no {what} {resolved}: give the path of your data")
    return resolved


def samples(values: Any, where: str) -> Tensor:
    """Samples as float32: bytes are divided by 255, other numbers are left as they are.

    Raises:
        ValueError: no numbers, no samples, or values that are not finite.
    """
    try:
        array = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected numbers, got {getattr(values, 'dtype', type(values).__name__)}") from error
    if array.dim() < 2 or len(array) == 0:
        raise ValueError(f"{where}: expected samples (samples, ...), got the shape {tuple(array.shape)}")
    if array.is_complex():
        raise ValueError(f"{where}: expected real numbers, got {array.dtype}")
    scaled = array.float().div(255) if array.dtype == torch.uint8 else array.float()
    if not scaled.isfinite().all():
        bad = int((~scaled.isfinite().flatten(1).all(1)).nonzero()[0])
        raise ValueError(f"{where}: sample {bad} holds NaN or infinity (in float32); repair it or take it out")
    return scaled


def check_scales(given: Mapping[str, Any], scaled: Mapping[str, Tensor]) -> None:
    """Checks that no part was divided by 255 beside one that is in other units: a network would be tested on another scale.

    Args:
        given: samples of each part, as they came.
        scaled: the same from `samples`.

    Raises:
        ValueError: bytes beside numbers outside [0, 1].
    """
    in_bytes = {part: str(getattr(values, "dtype", "")).endswith("uint8") for part, values in given.items()}
    if not any(in_bytes.values()):
        return
    for part, values in scaled.items():
        low, high = float(values.min()), float(values.max())
        if not in_bytes[part] and not 0.0 <= low <= high <= 1.0:
            other = next(name for name, yes in in_bytes.items() if yes)
            raise ValueError(
                f"{other} holds bytes, which are divided by 255, and {part} numbers from {low:g} to {high:g}, which are not: "
                "give both one type and one scale"
            )


def labels(values: Any, where: str, count: int) -> Tensor:
    """Labels as int64, one a sample, from 0.

    Raises:
        ValueError: another number of labels, text, fractions, or a label below 0.
    """
    if not isinstance(values, Tensor) and np.asarray(values).dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected labels as whole numbers from 0, got {np.asarray(values).dtype}")
    array = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if array.dim() == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dim() != 1 or len(array) != count:
        raise ValueError(f"{where}: expected one label for each of {count} samples, got the shape {tuple(array.shape)}")
    whole = array.long()
    if array.dtype == torch.bool or not torch.equal(whole.to(array.dtype), array):
        raise ValueError(f"{where}: expected labels as whole numbers from 0, got {array.dtype}")
    if len(whole) and int(whole.min()) < 0:
        raise ValueError(f"{where}: expected labels from 0, got {int(whole.min())}")
    return whole


def own_source(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor] | None,
    classes: Sequence[str] | None,
    *,
    where: str,
    fraction: float = TEST,
) -> Source:
    """A source of checked samples and labels.

    Args:
        name: of the source.
        train: samples and labels to train on.
        test: samples and labels to test on; None takes a fixed share of each class out of the others.
        classes: names of the labels; None: the labels themselves.
        where: the file or folder, for messages.
        fraction: that share.

    Raises:
        ValueError: shapes that differ, a label without a name, a name of two labels, or a class without samples to train or to
            test on.
    """
    check_class_names(classes, where)
    (x, y), parts = train, test
    if parts is None:
        try:
            first, second = stratified_split(y, fraction, torch.Generator().manual_seed(SPLIT_SEED), classes=classes)
        except ValueError as error:
            raise ValueError(f"{where} has no test samples, and none can be split off: {error}") from None
        (x, y), parts = (_taken(x, first), y[first]), (_taken(x, second), y[second])
    test_x, test_y = parts
    if test_x.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{where}: training samples have the shape {tuple(x.shape[1:])}, test samples {tuple(test_x.shape[1:])}"
        )
    number = len(classes) if classes is not None else int(max(y.max(), test_y.max())) + 1
    for part, of_part in (("training", y), ("test", test_y)):
        if int(of_part.max()) >= number:
            raise ValueError(
                f"{where}: expected {part} labels below {number}, the number of classes, got {of_part.max()}"
            )
        empty = (torch.bincount(of_part, minlength=number) == 0).nonzero().flatten().tolist()
        if empty:
            which = classes[empty[0]] if classes is not None else empty[0]
            raise ValueError(f"{where}: class {which!r} has no {part} samples; number classes from 0 without gaps")
    named = tuple(classes) if classes is not None else tuple(str(label) for label in range(number))
    return Source(name, x, y, test_x, test_y, named)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    return cast(Tensor, x.select(index)) if isinstance(x, LazySamples) else x[index]


def class_index(names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Labels by name as numbers, in the alphabetical order of the names.

    Example:
        >>> class_index(["b", "a", "b"])
        (tensor([1, 0, 1]), ['a', 'b'])
    """
    classes = sorted(set(names))
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[name] for name in names]), classes

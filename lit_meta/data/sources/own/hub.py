"""Data sets of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lit_meta.data.lazy_samples import lazy
from lit_meta.data.readers.image import Channels, pixels
from lit_meta.data.sources.base import Source
from lit_meta.data.sources.own._checks import TEST, class_index, labels, own_source, samples
from lit_meta.utils.optional import needed

_LABELS = ("label", "labels", "fine_label", "class", "target", "y")
_TESTS = ("test", "validation", "valid", "val")


def load_hub(
    path: str,
    *,
    config: str | None = None,
    label: str | None = None,
    column: str | None = None,
    size: int | Sequence[int] | None = None,
    channels: Channels = 3,
    test: float = TEST,
    keep: bool | None = None,
) -> Source:
    """A data set of the Hugging Face hub, or a folder of one.

    By name: ``hf:OWNER/NAME`` or ``hf:FOLDER``. Its ``train`` part is trained on; its ``test`` part, or else
    ``validation``, is tested on.

    Args:
        path: name on the hub, or a folder that ``save_to_disk`` or ``to_parquet`` wrote.
        config: its configuration, where it has several.
        label: the column of the class; None: the column of class labels, or one of a usual name.
        column: the column of the samples, images or numbers; None: the only other column of these.
        size: width and height that images are resized to; None: all have one size.
        channels: 3 for colour, 1 for grey.
        test: the share of each class that is tested on, where there is no such part.
        keep: whether images are read once and kept; None: if they take less than 1 GB.

    Returns:
        Samples of shape ``(channels, height, width)``, or ``(columns,)`` for lists of numbers.

    Raises:
        FileNotFoundError: it is neither a folder nor on the hub, or the hub cannot be reached.
        ValueError: a column that is missing or not clear, or values that are not samples and labels.
    """
    datasets = needed("datasets", "data", "a Hugging Face data set")
    folder = Path(path).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(str(folder) if folder.is_dir() else path, config)
    except Exception as error:  # Of the network, of the files or of the hub; they have no common type.
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"the Hugging Face data set {path!r} cannot be loaded ({reason}): check its name, or copy a folder that "
            "save_to_disk wrote from a machine with a network, and give its path"
        ) from error
    return from_dataset(
        loaded, label=label, column=column, size=size, channels=channels, test=test, keep=keep, name=folder.name
    )


def from_dataset(
    dataset: Any,
    *,
    label: str | None = None,
    column: str | None = None,
    size: int | Sequence[int] | None = None,
    channels: Channels = 3,
    name: str = "dataset",
    test: float = TEST,
    keep: bool | None = None,
) -> Source:
    """A source of a `datasets.Dataset` or `datasets.DatasetDict`; see `load_hub`.

    Args:
        dataset: the data set, or its parts by name.
        label: the column of the class.
        column: the column of the samples.
        size: width and height that images are resized to.
        channels: 3 for colour, 1 for grey.
        name: of the source, in results.
        test: the share of each class to test on, without a part for it.
        keep: whether images are read once and kept.

    Raises:
        ValueError: as of `load_hub`.
    """
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
    where = f"data set {name!r}"
    train = parts.get("train")
    if train is None:
        raise ValueError(f"{where} has no part train; it has {', '.join(parts) or 'none'}")
    held_out = next((parts[part] for part in _TESTS if part in parts), None)
    label, column = _columns(train, label, column, where)
    for used in (label, column):
        kinds = [part.features.get(used) for part in (train, held_out) if part is not None]
        if kinds[0] != kinds[-1]:
            raise ValueError(
                f"{where}: column {used!r} is {kinds[0]} in the part train and {kinds[1]} in the other: cast them to one"
            )
    names: list[str] | None = list(getattr(train.features[label], "names", None) or []) or None
    given = [part[label] for part in (train, held_out) if part is not None]
    if names is None and any(isinstance(value, str) for value in given[0]):
        _, names = class_index([str(value) for values in given for value in values])
        numbers = {text: number for number, text in enumerate(names)}
        given = [[numbers[str(value)] for value in values] for values in given]
    tensors = []
    for part, values in zip((train, held_out), given, strict=False):
        x = _samples(part, column, size, channels, keep, where)
        tensors.append((x, labels(np.asarray(values), f"{where}, column {label!r}", len(x))))
    return own_source(name, tensors[0], tensors[1] if len(tensors) == 2 else None, names, where=where, fraction=test)


def _columns(part: Any, label: str | None, column: str | None, where: str) -> tuple[str, str]:
    features = part.features
    for given in (label, column):
        if given is not None and given not in features:
            raise ValueError(f"{where} has no column {given!r}; it has {', '.join(features)}")
    if label is None:
        classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
        usual = [name for name in _LABELS if name in features]
        if len(classes) != 1 and not usual:
            raise ValueError(f"{where}: give label=, one of {', '.join(features)}")
        label = classes[0] if len(classes) == 1 else usual[0]
    if column is None:
        others = [name for name in features if name != label]
        pictures = [name for name in others if type(features[name]).__name__ == "Image"]
        chosen = pictures or others
        if len(chosen) != 1:
            raise ValueError(f"{where}: give column=, that of the samples, one of {', '.join(others) or 'none'}")
        column = chosen[0]
    return label, column


def _samples(
    part: Any, column: str, size: int | Sequence[int] | None, channels: Channels, keep: bool | None, where: str
) -> Tensor:
    if type(part.features[column]).__name__ != "Image":
        try:
            return samples(np.asarray(part[column][:]), f"{where}, column {column!r}")
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{where}, column {column!r} holds neither images nor numbers of one shape ({error})"
            ) from None
    shape = None if size is None else (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def read(row: int) -> Tensor:
        try:
            image = part[row][column]
        except Exception as error:
            raise ValueError(f"{where}: the image of row {row} cannot be read ({error})") from None
        if image is None:
            raise ValueError(f"{where}: row {row} has no image")
        return pixels(image, channels, shape)

    return lazy(range(len(part)), read, keep=keep)

"""Files in folders that are classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_meta.data.sources.base import stratified_split
from lit_meta.data.sources.own._checks import SPLIT_SEED, existing

_TEST_NAMES = ("test", "val", "valid", "validation")

Labelled = tuple[list[Path], Tensor]


def labelled_files(
    path: str | Path, suffixes: Sequence[str], what: str, test: float
) -> tuple[Path, list[str], Labelled, Labelled]:
    """The files below a folder with one folder a class, for training and for testing.

    Args:
        path: ``PATH/CLASS/file``, or ``PATH/train/CLASS/file`` and ``PATH/test/CLASS/file`` (or ``val``), or ``train`` alone.
        suffixes: of the files that count, in lower case.
        what: the files, in words, for messages.
        test: the share of each class that is tested on, where there is no folder for it.

    Returns:
        The folder, the names of the classes in alphabetical order, and files and labels of both parts.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an empty class, classes that differ between the parts, or a part for testing alone.
    """
    folder = existing(path, "folder")
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: expected one with a folder of {what} for each class")
    tested = next((folder / name for name in _TEST_NAMES if (folder / name).is_dir()), None)
    if (folder / "train").is_dir() and tested is not None:
        train, held_out = (_classes(part, suffixes, what) for part in (folder / "train", tested))
        if train.keys() != held_out.keys():
            odd = ", ".join(sorted(train.keys() ^ held_out.keys())[:5])
            raise ValueError(f"{tested}: its classes are not those of {folder / 'train'}: {odd}")
        return folder, list(train), _flat(train), _flat(held_out)
    alone = [part.name for part in _folders_in(folder)]
    if len(alone) == 1 and alone[0] in _TEST_NAMES:
        raise ValueError(f"{folder} has a folder {alone[0]} and none named train")
    classes = _classes(folder / "train" if alone == ["train"] else folder, suffixes, what)
    files, labels = _flat(classes)
    try:
        first, second = stratified_split(labels, test, torch.Generator().manual_seed(SPLIT_SEED), classes=list(classes))
    except ValueError as error:
        raise ValueError(f"{folder} has no folder test, and no test {what} can be split off: {error}") from None
    parts = [([files[i] for i in index.tolist()], labels[index]) for index in (first, second)]
    return folder, list(classes), parts[0], parts[1]


def _classes(folder: Path, suffixes: Sequence[str], what: str) -> dict[str, list[Path]]:
    classes = {}
    for part in _folders_in(folder):
        found = sorted(f for f in part.rglob("*") if f.suffix.lower() in suffixes and not f.name.startswith("."))
        if not found:
            raise ValueError(f"{part} holds no {what} ({', '.join(suffixes)}): fill the class or take it out")
        classes[part.name] = found
    if not classes:
        raise ValueError(f"{folder} has no folders: expected a folder of {what} for each class")
    return classes


def _folders_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _flat(classes: dict[str, list[Path]]) -> Labelled:
    files = [file for of_class in classes.values() for file in of_class]
    return files, torch.tensor([label for label, of_class in enumerate(classes.values()) for _ in of_class])

"""Larger photographs, found through Avalanche's own data sets: Tiny ImageNet, CORe50, CLEAR, CUB-200."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_meta.data.lazy_samples import images
from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, missing
from lit_meta.data.sources.catalog import CATALOG


def load_tiny_imagenet(root: Path, size: int = 64) -> Source:
    """Tiny ImageNet, 200 classes with 500 training and 50 validation images each; the latter are the test samples.

    Args:
        root: a folder with ``tiny-imagenet-200``; downloaded there if missing.
        size: width and height that images are resized to, in pixels; they have 64.

    Returns:
        Samples of shape ``(3, size, size)``, read when they are asked for.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
    """
    from avalanche.benchmarks.datasets import TinyImagenet

    fetch("tiny-imagenet", root, ("tiny-imagenet-200",), "Tiny ImageNet")
    train, test = _parts("tiny-imagenet", root, lambda train: TinyImagenet(root, train=train, download=False))
    folder = root / "tiny-imagenet-200"
    words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line)
    classes = [train.id2label[i] for i in range(len(train.id2label))]
    named = _distinct([words.get(wnid, wnid).split(",")[0] for wnid in classes], classes)
    pairs = [list(zip(part.data, part.targets, strict=True)) for part in (train, test)]
    return _source("tiny-imagenet", pairs, named, size)


def load_core50(root: Path, size: int = 128, categories: bool = False) -> Source:
    """CORe50, 50 objects filmed in 11 sessions; sessions 3, 7 and 10 are the test samples, as published.

    Args:
        root: a folder with ``core50`` (``core50_128x128`` and the lists of files); downloaded there if missing.
        size: width and height that images are resized to, in pixels; they have 128.
        categories: label the 10 categories instead of the 50 objects.

    Returns:
        Samples of shape ``(3, size, size)``, read when they are asked for.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a list of files is not the published one.
    """
    from avalanche.benchmarks.datasets import CORe50Dataset

    folder = root / "core50"
    lists = [archive for archive in CATALOG["core50"].archives if archive.name.endswith(".pkl")]
    fetch("core50", root, ("core50/core50_128x128", *(f"core50/{archive.name}" for archive in lists)), "CORe50")
    for archive in lists:
        # Avalanche unpickles these lists, and a pickle can run anything: only the published ones are opened.
        if f"md5:{hashlib.md5((folder / archive.name).read_bytes()).hexdigest()}" != archive.digest:
            raise ValueError(f"{folder / archive.name} is not the published file: download it again from {archive.url}")
    level = not categories
    train, test = _parts(
        "core50", folder, lambda train: CORe50Dataset(folder, train=train, download=False, object_level=level)
    )
    number = 10 if categories else 50
    names = tuple(str(label) for label in range(number))
    pictures = folder / "core50_128x128"
    pairs = [[(pictures / p, y) for p, y in zip(part.paths, part.targets, strict=True)] for part in (train, test)]
    return _source("core50", pairs, names, size)


def load_clear10(root: Path, size: int = 64) -> Source:
    """CLEAR-10, photographs of 11 classes from 2004 to 2014, with the published training and test images.

    Args:
        root: a folder with ``clear10/train`` and ``clear10/test``, as the archives of CLEAR unpack.
        size: width and height that images are resized to, in pixels; they have many sizes.

    Returns:
        Samples of shape ``(3, size, size)``, read when they are asked for, in the order of the years.

    Raises:
        FileNotFoundError: the files are missing.
    """
    from avalanche.benchmarks.datasets.clear import _CLEARImage

    folder = root / "clear10"
    fetch("clear10", root, ("clear10/train", "clear10/test"), "CLEAR-10")

    def part(train: bool) -> Any:
        return _CLEARImage(folder, data_name="clear10", download=False, split="train" if train else "test", seed=0)

    train, test = _parts("clear10", folder, part)
    # Not its paths and targets: in Avalanche 0.6 every year holds the images of all years there.
    pairs = [[(folder / path, y) for path, y in part.samples] for part in (train, test)]
    return _source("clear10", pairs, tuple(name for name in train.class_names if name), size)


def load_cub200(root: Path, size: int = 64) -> Source:
    """CUB-200-2011, photographs of 200 species of birds, with the published training and test images.

    Args:
        root: a folder with ``CUB_200_2011``; downloaded there if missing.
        size: width and height that images are resized to, in pixels; they have many sizes.

    Returns:
        Samples of shape ``(3, size, size)``, whole images, read when they are asked for.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
    """
    from avalanche.benchmarks.datasets import CUB200

    fetch("cub200", root, ("CUB_200_2011",), "CUB-200-2011")
    train, test = _parts("cub200", root, lambda train: CUB200(root, train=train, download=False))
    folder = root / CUB200.images_folder
    pairs = [[(folder / picture[0], picture[1]) for picture in part._images] for part in (train, test)]
    lines = (root / "CUB_200_2011" / "classes.txt").read_text().splitlines()
    names = tuple(line.split(maxsplit=1)[1].partition(".")[2] for line in lines if line.strip())
    return _source("cub200", pairs, names, size)


def _parts(name: str, folder: Path, make: Callable[[bool], Any]) -> tuple[Any, Any]:
    """Avalanche's data sets for training and for testing, without what they print."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return make(True), make(False)
    except (OSError, RuntimeError, KeyError, ValueError, IndexError) as error:
        page = CATALOG[name].homepage
        raise missing(name, folder, f"The folder is incomplete ({error}): unpack the data of {page} again") from error


def _source(name: str, parts: Sequence[Sequence[tuple[Any, Any]]], classes: Sequence[str], size: int) -> Source:
    """A source of pairs of a file and its label, for training and for testing."""
    if size < 1:
        raise ValueError(f"source {name!r}: size must be at least 1 pixel, got {size}")
    tensors = []
    for part in parts:
        # Avalanche lists folders in the order of the disk; CLEAR's order is that of the years.
        pairs = part if name == "clear10" else sorted(part, key=lambda pair: (int(pair[1]), str(pair[0])))
        if not pairs:
            raise ValueError(f"source {name!r} has no samples in one of its two parts: download it again")
        labels = torch.tensor([int(label) for _, label in pairs])
        tensors.append((images([Path(file) for file, _ in pairs], size=(size, size)), labels))
    return Source(name, *tensors[0], *tensors[1], tuple(classes))


def _distinct(names: list[str], ids: list[str]) -> tuple[str, ...]:
    """Names, with the id where a name occurs twice ("crane" is a bird and a machine)."""
    return tuple(name if names.count(name) == 1 else f"{name} ({id})" for name, id in zip(names, ids, strict=True))

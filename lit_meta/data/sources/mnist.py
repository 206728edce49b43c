"""MNIST and the data sets made in its image: Fashion-MNIST, KMNIST, EMNIST letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.readers.idx import read_idx
from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, unit_interval

_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_PARTS = ("train", "t10k")


def load_mnist(root: Path) -> Source:
    """MNIST, 60,000 training and 10,000 test digits of 28 x 28 pixels.

    Args:
        root: a folder with ``MNIST/raw/*-ubyte`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
    """
    return _load("mnist", "MNIST", root, "MNIST/raw", _DIGITS)


def load_fashion_mnist(root: Path) -> Source:
    """Fashion-MNIST, 60,000 training and 10,000 test pictures of clothes, 28 x 28 pixels.

    Args:
        root: a folder with ``FashionMNIST/raw/*-ubyte`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
    """
    return _load("fashion-mnist", "Fashion-MNIST", root, "FashionMNIST/raw", _CLOTHES)


def load_kmnist(root: Path) -> Source:
    """Kuzushiji-MNIST, 60,000 training and 10,000 test characters of cursive Japanese, 28 x 28 pixels.

    Args:
        root: a folder with ``KMNIST/raw/*-ubyte`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
    """
    return _load("kmnist", "KMNIST", root, "KMNIST/raw", _KANA)


def load_emnist_letters(root: Path) -> Source:
    """The letters of EMNIST, 124,800 for training and 20,800 for testing, upper and lower case together, 28 x 28 pixels.

    The files hold the images transposed, and the labels 1 to 26; here they are upright, and labels start at 0.

    Args:
        root: a folder with ``EMNIST/raw/gzip/emnist-letters-*-ubyte.gz`` or with the same files unpacked in ``EMNIST/raw``
            (torchvision's layout); downloaded there if missing.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
        ValueError: a label is not 1 to 26.
    """
    folder = root / "EMNIST" / "raw"
    prefix = "emnist-letters-"
    if not (folder / f"{prefix}train-images-idx3-ubyte").is_file():
        packed = tuple(f"EMNIST/raw/gzip/{prefix}{name}.gz" for name in _names("train", "test"))
        fetch("emnist-letters", root, packed, "the letters of EMNIST")
        folder, suffix = folder / "gzip", ".gz"
    else:
        suffix = ""
    files = [folder / f"{prefix}{name}{suffix}" for name in _names("train", "test")]
    train_x, train_y, test_x, test_y = (read_idx(file) for file in files)
    for file, labels in ((files[1], train_y), (files[3], test_y)):
        if labels.size and not (labels.min() >= 1 and labels.max() <= len(_LETTERS)):
            raise ValueError(f"{file}: expected labels from 1 to 26, got {labels.min()} to {labels.max()}")
    upright = (np.swapaxes(images, 1, 2)[:, None] for images in (train_x, test_x))
    train, test = (unit_interval(images) for images in upright)
    return Source("emnist-letters", train, _labels(train_y) - 1, test, _labels(test_y) - 1, _LETTERS)


def _names(train: str, test: str) -> list[str]:
    return [f"{part}-{kind}-ubyte" for part in (train, test) for kind in ("images-idx3", "labels-idx1")]


def _load(name: str, what: str, root: Path, folder: str, classes: tuple[str, ...]) -> Source:
    files = [f"{folder}/{file}" for file in _names(*_PARTS)]
    fetch(name, root, tuple(files), what)
    train_x, train_y, test_x, test_y = (read_idx(root / file) for file in files)
    return Source(
        name,
        unit_interval(train_x[:, None]),
        _labels(train_y),
        unit_interval(test_x[:, None]),
        _labels(test_y),
        classes,
    )


def _labels(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))

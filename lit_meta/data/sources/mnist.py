"""MNIST."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import torch

from lit_meta.data.readers.idx import read_idx
from lit_meta.data.sources.base import Source, described, missing, unit_interval

_CLASSES = tuple(str(digit) for digit in range(10))


@described(classes=10, files=("MNIST/raw",))
def load_mnist(root: Path) -> Source:
    """MNIST, 60,000 training and 10,000 test digits of 28 x 28 pixels.

    Args:
        root: a folder with ``MNIST/raw/*-ubyte`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
    """
    folder = root / "MNIST" / "raw"
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    if not all((folder / name).is_file() for name in names):
        from torchvision.datasets import MNIST

        try:
            MNIST(str(root), download=True)
        except (OSError, RuntimeError, urllib.error.URLError) as error:
            raise missing(
                "MNIST",
                folder,
                f"Downloading it failed ({error}). Put the four uncompressed IDX files "
                f"({', '.join(names)}) there, for example with "
                f"torchvision.datasets.MNIST(root, download=True) on a machine with a network",
            ) from error
    train_x, train_y, test_x, test_y = (read_idx(folder / name) for name in names)
    return Source(
        "mnist",
        unit_interval(train_x[:, None]),
        torch.from_numpy(train_y.astype(np.int64)),
        unit_interval(test_x[:, None]),
        torch.from_numpy(test_y.astype(np.int64)),
        _CLASSES,
    )

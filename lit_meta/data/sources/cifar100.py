"""CIFAR-100."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, missing, unit_interval


def load_cifar100(root: Path) -> Source:
    """CIFAR-100, 50,000 training and 10,000 test images of 32 x 32 pixels, with the 100 fine labels.

    Args:
        root: a folder with ``cifar-100-python`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(3, 32, 32)``.

    Raises:
        FileNotFoundError: the files are missing or incomplete, and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR100

    fetch("cifar100", root, ("cifar-100-python",), "CIFAR-100")
    try:
        # torchvision compares the digest of every file before it unpickles any of them.
        train, test = (CIFAR100(str(root), train=train, download=False) for train in (True, False))
    except RuntimeError as error:
        folder = root / "cifar-100-python"
        raise missing(
            "CIFAR-100", folder, f"The folder is incomplete ({error}): delete it, and it is downloaded"
        ) from error
    return Source(
        "cifar100",
        unit_interval(train.data.transpose(0, 3, 1, 2)),
        torch.from_numpy(np.asarray(train.targets, dtype=np.int64)),
        unit_interval(test.data.transpose(0, 3, 1, 2)),
        torch.from_numpy(np.asarray(test.targets, dtype=np.int64)),
        tuple(train.classes),
    )

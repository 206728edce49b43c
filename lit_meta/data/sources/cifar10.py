"""CIFAR-10, with a test set available in every distribution of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, missing, unit_interval

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_HELD_OUT = 5_000
_OFFICIAL_TEST = 1_000


def load_cifar10(root: Path) -> Source:
    """CIFAR-10 with 45,000 training images and a test set of 6,000.

    The test set is the first 1,000 official test images followed by the last 5,000 official *training*
    images, which are never trained on. It is the same whether the images come from the one-file archive
    (which has no further test images) or from the full distribution, so numbers can be compared.

    Args:
        root: a folder with ``cifar10.npz`` (``x_train`` uint8 (50000, 32, 32, 3), ``y_train``, ``x_test``,
            ``y_test``) or with ``cifar-10-batches-py`` in torchvision's layout; downloaded there if missing.

    Returns:
        Samples of shape ``(3, 32, 32)``; ``held_out_x`` holds the 5,000 training images.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
        ValueError: if the archive does not contain 50,000 training and at least 1,000 test images.
    """
    archive = root / "cifar10.npz"
    if archive.is_file():
        with np.load(archive, allow_pickle=False) as arrays:
            x, y, test_x, test_y = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    else:
        x, y, test_x, test_y = _torchvision_cifar10(root)
    if x.shape != (50_000, 32, 32, 3) or test_x.shape[1:] != (32, 32, 3) or len(test_x) < _OFFICIAL_TEST:
        raise ValueError(
            f"expected CIFAR-10 arrays of (50000, 32, 32, 3) and at least ({_OFFICIAL_TEST}, 32, 32, 3) "
            f"under {root}, got {x.shape} and {test_x.shape}; download the files again"
        )
    end = len(x) - _HELD_OUT
    test_x = np.concatenate([test_x[:_OFFICIAL_TEST], x[end:]])
    test_y = np.concatenate([test_y[:_OFFICIAL_TEST], y[end:]])
    test_images = unit_interval(test_x.transpose(0, 3, 1, 2))
    test_labels = torch.from_numpy(test_y.astype(np.int64))
    return Source(
        "cifar10",
        unit_interval(x[:end].transpose(0, 3, 1, 2)),
        torch.from_numpy(y[:end].astype(np.int64)),
        test_images,
        test_labels,
        _CLASSES,
        held_out_x=test_images[_OFFICIAL_TEST:],
        held_out_y=test_labels[_OFFICIAL_TEST:],
    )


def _torchvision_cifar10(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from torchvision.datasets import CIFAR10

    fetch("cifar10", root, ("cifar-10-batches-py",), "CIFAR-10")
    try:
        # torchvision verifies the checksum of every file before it unpickles any of them.
        train, test = (CIFAR10(str(root), train=train, download=False) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise missing(
            "CIFAR-10",
            root / "cifar-10-batches-py",
            f"The folder is incomplete ({error}): delete it, and it is downloaded; or put cifar10.npz beside it",
        ) from error
    return train.data, np.asarray(train.targets), test.data, np.asarray(test.targets)

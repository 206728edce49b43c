"""Street View House Numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, unit_interval


def load_svhn(root: Path) -> Source:
    """SVHN (cropped digits), 73,257 training and 26,032 test images of 32 x 32 pixels; the extra images are left out.

    Args:
        root: a folder with ``SVHN/train_32x32.mat`` and ``SVHN/test_32x32.mat``; downloaded there if missing.

    Returns:
        Samples of shape ``(3, 32, 32)``.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file does not hold the images.
    """
    files = ("SVHN/train_32x32.mat", "SVHN/test_32x32.mat")
    fetch("svhn", root, files, "SVHN")
    (train_x, train_y), (test_x, test_y) = (_read(root / file) for file in files)
    return Source("svhn", train_x, train_y, test_x, test_y, tuple(str(digit) for digit in range(10)))


def _read(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from scipy.io import loadmat

    try:
        content = loadmat(file)
        images, labels = content["X"], content["y"]
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{file} is not the MATLAB file of SVHN ({error}): download it again") from None
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.shape[3] != labels.size:
        raise ValueError(f"{file}: expected X of (32, 32, 3, n) and n labels, got {images.shape} and {labels.size}")
    # The file has 10 for the digit 0.
    y = torch.from_numpy(labels.flatten().astype("int64")) % 10
    return unit_interval(images.transpose(3, 2, 0, 1)), y

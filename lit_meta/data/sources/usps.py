"""USPS, handwritten digits of envelopes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, unit_interval


def load_usps(root: Path) -> Source:
    """USPS, 7,291 training and 2,007 test digits of 16 x 16 pixels.

    Args:
        root: a folder with ``USPS/usps.bz2`` and ``USPS/usps.t.bz2`` (LIBSVM's files); downloaded there if missing.

    Returns:
        Samples of shape ``(1, 16, 16)``.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file is damaged.
    """
    from torchvision.datasets import USPS

    fetch("usps", root, ("USPS/usps.bz2", "USPS/usps.t.bz2"), "USPS")
    tensors = []
    for train in (True, False):
        try:
            part = USPS(str(root / "USPS"), train=train, download=False)
        except (OSError, EOFError, ValueError, IndexError) as error:
            file = root / "USPS" / ("usps.bz2" if train else "usps.t.bz2")
            raise ValueError(f"{file} cannot be read ({error}): download it again") from None
        labels = torch.from_numpy(np.asarray(part.targets, dtype=np.int64))
        tensors.append((unit_interval(part.data[:, None]), labels))
    return Source("usps", *tensors[0], *tensors[1], tuple(str(digit) for digit in range(10)))

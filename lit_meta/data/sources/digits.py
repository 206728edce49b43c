"""scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import torch

from lit_meta.data.sources.base import Source, stratified_split

_CLASSES = tuple(str(digit) for digit in range(10))
_TEST_FRACTION = 0.2
_SPLIT_SEED = 1797  # The number of images. Never change it: every published number depends on this split.


def load_digits(root: Path) -> Source:
    """scikit-learn's own 1,797 handwritten digits, 8 x 8 pixels, in a fixed stratified 80/20 split.

    Args:
        root: unused, since the images come with scikit-learn; every loader takes it.

    Returns:
        Samples of shape ``(1, 8, 8)``.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    images, labels = sklearn_digits(return_X_y=True)
    x = torch.from_numpy(images).float().div_(16).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels).long()
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    train, test = stratified_split(y, _TEST_FRACTION, generator)
    return Source("digits", x[train], y[train], x[test], y[test], _CLASSES)

"""Image sources: scikit-learn's digits, MNIST and CIFAR-10."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_meta.data._source import Source, missing, stratified_split

_DIGITS = tuple(str(digit) for digit in range(10))
_DIGITS_TEST_FRACTION = 0.2
_DIGITS_SPLIT_SEED = 1797  # The number of images; fixed for good, since every published number depends on it.

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_HELD_OUT = 5_000
_CIFAR10_OFFICIAL_TEST = 1_000


def load_digits(root: Path) -> Source:
    """scikit-learn's own 1,797 handwritten digits, 8 x 8 pixels, in a fixed stratified 80/20 split.

    Args:
        root: not read, since the images come with scikit-learn; every loader takes it.

    Returns:
        Samples of shape ``(1, 8, 8)``.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    images, labels = sklearn_digits(return_X_y=True)
    x = torch.from_numpy(images).float().div_(16).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels).long()
    generator = torch.Generator().manual_seed(_DIGITS_SPLIT_SEED)
    train, test = stratified_split(y, _DIGITS_TEST_FRACTION, generator)
    return Source("digits", x[train], y[train], x[test], y[test], _DIGITS)


def read_idx(file: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes (the format of MNIST).

    The header is two zero bytes, the type (8: unsigned byte), the number of dimensions, and the size of each
    as a big-endian 32-bit integer.

    Args:
        file: an uncompressed IDX file.

    Returns:
        A uint8 array of the shape in the header.

    Raises:
        ValueError: if the file is not IDX, holds another type, or is of another length than its header says.
    """
    content = file.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{file} is not an uncompressed IDX file of unsigned bytes: expected it to begin with 000008, "
            f"got {content[:3].hex()}; unpack it, or download it again"
        )
    dimensions = content[3]
    shape = tuple(np.frombuffer(content, ">u4", count=dimensions, offset=4).astype(int).tolist())
    start = 4 + 4 * dimensions
    if len(content) - start != int(np.prod(shape)):
        raise ValueError(
            f"{file} is damaged: its header says {shape}, which is {int(np.prod(shape))} bytes, but "
            f"{len(content) - start} follow; download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def load_mnist(root: Path) -> Source:
    """MNIST, 60,000 training and 10,000 test digits of 28 x 28 pixels.

    Args:
        root: a folder with ``MNIST/raw/*-ubyte``, as torchvision lays it out; downloaded into where absent.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if the files are absent and cannot be downloaded.
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
                f"A download was tried and failed ({error}). Put the four uncompressed IDX files "
                f"({', '.join(names)}) there, for example with "
                f"torchvision.datasets.MNIST(root, download=True) on a machine with a network",
            ) from error
    train_x, train_y, test_x, test_y = (read_idx(folder / name) for name in names)
    return Source(
        "mnist",
        _as_unit_interval(train_x[:, None]),
        torch.from_numpy(train_y.astype(np.int64)),
        _as_unit_interval(test_x[:, None]),
        torch.from_numpy(test_y.astype(np.int64)),
        _DIGITS,
    )


def load_cifar10(root: Path) -> Source:
    """CIFAR-10 with 45,000 training images and a test set of 6,000.

    The test set is the first 1,000 official test images followed by the last 5,000 official *training*
    images, which are never trained on. It is the same whether the images come from the one-file archive
    (which has no further test images) or from the full distribution, so that numbers can be compared.

    Args:
        root: a folder with ``cifar10.npz`` (``x_train`` uint8 (50000, 32, 32, 3), ``y_train``, ``x_test``,
            ``y_test``) or with ``cifar-10-batches-py``, as torchvision lays it out; downloaded into where
            absent.

    Returns:
        Samples of shape ``(3, 32, 32)``; ``held_out_x`` is the 5,000 images.

    Raises:
        FileNotFoundError: if the files are absent and cannot be downloaded.
        ValueError: if the archive does not hold 50,000 training and at least 1,000 test images.
    """
    archive = root / "cifar10.npz"
    if archive.is_file():
        with np.load(archive, allow_pickle=False) as arrays:
            x, y, test_x, test_y = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    else:
        x, y, test_x, test_y = _torchvision_cifar10(root)
    if x.shape != (50_000, 32, 32, 3) or test_x.shape[1:] != (32, 32, 3) or len(test_x) < _CIFAR10_OFFICIAL_TEST:
        raise ValueError(
            f"expected CIFAR-10 arrays of (50000, 32, 32, 3) and at least ({_CIFAR10_OFFICIAL_TEST}, 32, "
            f"32, 3) "
            f"under {root}, got {x.shape} and {test_x.shape}; get the files again"
        )
    end = len(x) - _CIFAR10_HELD_OUT
    test_x = np.concatenate([test_x[:_CIFAR10_OFFICIAL_TEST], x[end:]])
    test_y = np.concatenate([test_y[:_CIFAR10_OFFICIAL_TEST], y[end:]])
    test_images = _as_unit_interval(test_x.transpose(0, 3, 1, 2))
    test_labels = torch.from_numpy(test_y.astype(np.int64))
    return Source(
        "cifar10",
        _as_unit_interval(x[:end].transpose(0, 3, 1, 2)),
        torch.from_numpy(y[:end].astype(np.int64)),
        test_images,
        test_labels,
        _CIFAR10_CLASSES,
        held_out_x=test_images[_CIFAR10_OFFICIAL_TEST:],
        held_out_y=test_labels[_CIFAR10_OFFICIAL_TEST:],
    )


def _torchvision_cifar10(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from torchvision.datasets import CIFAR10

    present = (root / "cifar-10-batches-py").is_dir()
    try:
        # torchvision compares the checksum of every file before it unpickles any of them.
        train = CIFAR10(str(root), train=True, download=not present)
        test = CIFAR10(str(root), train=False, download=False)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        tried = (
            "The folder cifar-10-batches-py is there but incomplete" if present else "A download was tried and failed"
        )
        raise missing(
            "CIFAR-10",
            root / "cifar10.npz",
            f"{tried} ({error}). Put cifar10.npz or the folder cifar-10-batches-py there, for example with "
            "torchvision.datasets.CIFAR10(root, download=True) on a machine with a network",
        ) from error
    return train.data, np.asarray(train.targets), test.data, np.asarray(test.targets)


def _as_unit_interval(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).div_(255)

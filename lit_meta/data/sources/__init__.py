"""Data sources by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from lit_meta.data.sources.base import Source, cache_folder, data_root
from lit_meta.data.sources.cifar10 import load_cifar10
from lit_meta.data.sources.digits import load_digits
from lit_meta.data.sources.dvs_gesture import load_dvs_gesture
from lit_meta.data.sources.mnist import load_mnist
from lit_meta.data.sources.omniglot import load_omniglot_greek, load_omniglot_latin, load_strokes_latin
from lit_meta.data.sources.spoken_digits import load_fsdd
from lit_meta.data.sources.tidigits import load_tidigits
from lit_meta.utils.registry import unknown

_LOADERS: dict[str, Callable[[Path], Source]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "fsdd": load_fsdd,
    "omniglot-latin": load_omniglot_latin,
    "omniglot-greek": load_omniglot_greek,
    "strokes-latin": load_strokes_latin,
    "dvs-gesture": load_dvs_gesture,
    "tidigits": load_tidigits,
}


def source_names() -> tuple[str, ...]:
    """The names of the sources, in alphabetical order."""
    return tuple(sorted(_LOADERS))


def load_source(name: str, root: str | Path | None = None) -> Source:
    """Loads a data set as tensors in [0, 1], with the test split fixed by its publication or by this project.

    The two most recently used sources stay in memory and are shared: treat their tensors as read-only.

    Args:
        name: one of `source_names`.
        root: the folder of the data sets; `data_root` by default.

    Returns:
        The source.

    Raises:
        KeyError: if there is no source of that name.
        FileNotFoundError: if its files are missing and cannot be downloaded; the message says how to get them.
        ValueError: if its files are damaged.

    Example:
        >>> source = load_source("digits")
        >>> source.input_shape, len(source.train_y) + len(source.test_y)
        ((1, 8, 8), 1797)
    """
    if name not in _LOADERS:
        raise unknown("source", name, _LOADERS)
    folder = data_root() if root is None else Path(root).expanduser()
    return _load(name, folder.absolute())


# Two, for a stream and one to compare it with; CIFAR-10 alone takes 600 MB.
@lru_cache(maxsize=2)
def _load(name: str, root: Path) -> Source:
    return _LOADERS[name](root)


__all__ = ["Source", "cache_folder", "data_root", "load_source", "source_names"]

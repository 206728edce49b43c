"""A folder of images, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_meta.data.lazy_samples import images
from lit_meta.data.readers.image import SUFFIXES, Channels
from lit_meta.data.sources.base import Source
from lit_meta.data.sources.own._checks import TEST, own_source
from lit_meta.data.sources.own._folders import labelled_files


def load_folder(
    path: str | Path,
    *,
    size: int | Sequence[int] | None = None,
    channels: Channels = 3,
    test: float = TEST,
    keep: bool | None = None,
) -> Source:
    """Images of your own, one folder for each class.

    By name: ``folder:PATH``. Either ``PATH/CLASS/image.png``, of which a fixed share of each class is tested on, or
    ``PATH/train/CLASS/...`` and ``PATH/test/CLASS/...`` (or ``val``). Classes are numbered in the alphabetical order of
    their folders.

    Args:
        path: the folder.
        size: width and height that images are resized to, one number or (height, width); None: all have one size.
        channels: 3 for colour, 1 for grey.
        test: the share of each class that is tested on, where there is no such folder.
        keep: whether images are read once and kept; None: if they take less than 1 GB. Others are read when they are asked for.

    Returns:
        Samples of shape ``(channels, height, width)``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an empty class, an image that cannot be read or has another size; the file is named.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number, name in enumerate(("cat", "dog")):
        ...     (folder / name).mkdir()
        ...     for i in range(5):
        ...         Image.new("RGB", (8, 8), (100 * number, i, 0)).save(folder / name / f"{i}.png")
        >>> source = load_folder(folder)
        >>> source.classes, source.train_x.shape, source.test_y
        (('cat', 'dog'), torch.Size([8, 3, 8, 8]), tensor([0, 1]))
    """
    shape = _size(size)
    folder, classes, train, held_out = labelled_files(path, SUFFIXES, "images", test)
    parts = [(images(files, channels=channels, size=shape, keep=keep), labels) for files, labels in (train, held_out)]
    return own_source(folder.name, parts[0], parts[1], classes, where=str(folder))


def _size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise ValueError(f"size must be a number of pixels or (height, width), got {size!r}")
    return pair[0], pair[1]

"""Image files of any format that Pillow reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

Channels = Literal[1, 3]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def read_image(file: Path, *, channels: Channels = 3, size: tuple[int, int] | None = None) -> Tensor:
    """Reads an image.

    Args:
        file: the file.
        channels: 3 for colour, 1 for grey.
        size: height and width to resize to (antialiased), whatever the proportions; None leaves them.

    Returns:
        The image in [0, 1], float32, ``(channels, height, width)``.

    Raises:
        ValueError: it is not an image, or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return pixels(image, channels, size)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image ({error}): replace it or take it out") from None


def pixels(image: Image.Image, channels: Channels = 3, size: tuple[int, int] | None = None) -> Tensor:
    """A picture of Pillow's in [0, 1], float32, ``(channels, height, width)``; see `read_image`."""
    from PIL import Image

    picture = image.convert("L" if channels == 1 else "RGB")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(picture, dtype=np.float32).reshape(picture.size[1], picture.size[0], channels)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).div_(255)

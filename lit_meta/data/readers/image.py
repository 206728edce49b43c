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
    """A picture of Pillow's as a viewer shows it, in [0, 1], float32, ``(channels, height, width)``; see `read_image`.

    It is turned as its EXIF data say. Transparency is laid on white paper, or on black where all ink is lighter than mid-grey,
    which would not show on white.

    Raises:
        ValueError: pixels of 32 bits, which have no range of their own.

    Example:
        >>> from PIL import Image
        >>> white_ink = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
        >>> white_ink.putpixel((0, 0), (255, 255, 255, 255))
        >>> pixels(white_ink, channels=1)
        tensor([[[1., 0.]]])
    """
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(image)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _in_bytes(picture)
    else:
        picture = _on_paper(picture).convert("L" if channels == 1 else "RGB")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(picture, dtype=np.float32).reshape(picture.size[1], picture.size[0], -1)
    planes = torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C")).div_(255)
    return planes if len(planes) == channels else planes.repeat(channels, 1, 1)


def _in_bytes(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits on the scale of bytes, not rounded; Pillow would cut off all above 255."""
    from PIL import Image

    values = np.asarray(picture, dtype=np.float32)
    if picture.mode == "F" or not (values.size == 0 or 0 <= values.min() <= values.max() <= 65535):
        raise ValueError(
            f"its pixels have 32 bits (Pillow's mode {picture.mode!r}), of which nothing says what is white: save it with 8 or "
            "16 bits"
        )
    return Image.fromarray(values / 257)


def _on_paper(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    ink = picture.convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)
    darkest = on_white.convert("L").getextrema()[0]
    if int(darkest) < 128:  # type: ignore[arg-type]
        return on_white
    return Image.alpha_composite(Image.new("RGBA", ink.size, "black"), ink)

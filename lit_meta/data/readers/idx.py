"""IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np


def read_idx(file: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes (the format of MNIST).

    The header is two zero bytes, the type (8: unsigned byte), the number of dimensions, and the size of each
    as a big-endian 32-bit integer.

    Args:
        file: an IDX file, packed with gzip if its name ends in ``.gz``.

    Returns:
        A uint8 array of the shape in the header.

    Raises:
        ValueError: if the file is not IDX, holds another type, or its length does not match its header.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be unpacked ({error}); download it again") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"{file} is not an uncompressed IDX file of unsigned bytes: expected it to begin with 000008, "
            f"got {content[:3].hex()}; unpack it or download it again"
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

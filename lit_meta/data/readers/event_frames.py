"""Recordings of events as binary frames."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.readers.aedat import read_aedat
from lit_meta.utils.optional import needed

SUFFIXES = (".npy", ".npz", ".aedat", ".bin", ".aedat4")
_FIELDS = ("x", "y", "t", "p")


def event_frames(events: np.ndarray, sensor: tuple[int, int, int], frames: int) -> Tensor:
    """Events as binary frames, in equal parts of the recording's own duration.

    Args:
        events: structured array with the fields x, t, p and, unless the sensor has one row, y.
        sensor: columns, rows and polarities.
        frames: number of frames.

    Returns:
        ``(frames, polarities, rows, columns)``, float32, zeros and ones; zeros where there are no events.

    Example:
        >>> kind = [("x", int), ("y", int), ("t", int), ("p", int)]
        >>> events = np.array([(0, 0, 0, 0), (1, 0, 99, 1)], dtype=kind)
        >>> event_frames(events, (2, 1, 2), 2).flatten(1)
        tensor([[1., 0., 0., 0.],
                [0., 0., 0., 1.]])
    """
    shape = (frames, sensor[2], sensor[1], sensor[0])
    grid = torch.zeros(shape)
    if len(events) == 0:
        return grid
    time = events["t"] - events["t"].min()
    frame = np.minimum(time * frames // max(int(time.max()), 1), frames - 1).astype(np.int64)
    rows = events["y"] if sensor[1] > 1 else np.zeros(len(events), np.int64)
    polarity = events["p"] if sensor[2] > 1 else np.zeros(len(events), np.int64)
    index = (torch.from_numpy(np.asarray(values).astype(np.int64)) for values in (frame, polarity, rows, events["x"]))
    grid[tuple(index)] = 1
    return grid


def read_events(file: Path) -> np.ndarray:
    """Reads a recording: NumPy's structured arrays, AEDAT 3.1 and 4, N-MNIST's ``.bin``.

    Args:
        file: ``.npy`` with the fields x, y, t and p (also ``.npz`` with arrays of these names), ``.aedat`` (3.1),
            ``.aedat4``, or ``.bin``.

    Returns:
        Structured array ``(events,)`` with the fields x, y, t (microseconds) and p (0 or 1).

    Raises:
        ValueError: another format, or a damaged file; the file is named.
    """
    kind = np.dtype([(name, np.int64) for name in _FIELDS])
    if file.suffix == ".aedat":
        events = read_aedat(file)
        columns: Any = {"x": events.x, "y": events.y, "t": events.time, "p": events.on}
    elif file.suffix in (".bin", ".aedat4"):
        tonic = needed("tonic.io", "events", "an event recording")
        try:
            columns = tonic.read_mnist_file(file, dtype=kind) if file.suffix == ".bin" else tonic.read_aedat4(file)
        except Exception as error:  # Of many kinds, from within the reader.
            raise ValueError(f"{file} cannot be read as a recording of events ({error})") from None
    elif file.suffix in (".npy", ".npz"):
        try:
            with file.open("rb") as opened:
                loaded = np.load(opened, allow_pickle=False)
                columns = loaded if file.suffix == ".npy" else {name: loaded[name] for name in loaded.files}
        except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} cannot be read as a NumPy file of plain arrays ({error})") from None
    else:
        raise ValueError(f"{file}: expected a recording of events ({', '.join(SUFFIXES)})")
    try:
        values = [np.asarray(columns[name]) for name in _FIELDS]
    except (KeyError, IndexError, ValueError):
        raise ValueError(f"{file}: expected the fields {', '.join(_FIELDS)}") from None
    if len({value.shape for value in values}) != 1 or values[0].ndim != 1:
        raise ValueError(f"{file}: expected one x, y, t and p for each event")
    result = np.empty(len(values[0]), kind)
    for name, value in zip(_FIELDS, values, strict=True):
        result[name] = value
    return result

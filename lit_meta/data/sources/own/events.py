"""A folder of event recordings, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from lit_meta.data.lazy_samples import lazy
from lit_meta.data.readers.event_frames import SUFFIXES, event_frames, read_events
from lit_meta.data.sources.base import Source
from lit_meta.data.sources.own._checks import TEST, own_source
from lit_meta.data.sources.own._folders import labelled_files
from lit_meta.utils.arguments import require_count


def load_events(
    path: str | Path, *, sensor: Sequence[int], frames: int = 10, test: float = TEST, keep: bool | None = None
) -> Source:
    """Recordings of an event camera, one folder for each class.

    By name: ``events:PATH``. Files are ``.npy`` (structured, with x, y, t and p), ``.npz`` with arrays of these names,
    ``.aedat`` (3.1), ``.aedat4`` or N-MNIST's ``.bin``, in folders like those of images: ``PATH/CLASS/...``, or
    ``PATH/train/CLASS/...`` and ``PATH/test/CLASS/...``.

    Args:
        path: the folder.
        sensor: columns, rows and polarities (1 adds both together), such as (128, 128, 2).
        frames: equal parts of a recording's duration.
        test: the share of each class that is tested on, where there is no such folder.
        keep: whether recordings are read once and kept; None: if they take less than 1 GB.

    Returns:
        Samples of shape ``(frames, polarities, rows, columns)``: zeros and ones.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an empty class, a recording that cannot be read, or an event outside the sensor; the file is named.
    """
    size = tuple(sensor)
    if len(size) != 3 or not all(isinstance(n, int) and n >= 1 for n in size) or size[2] > 2:
        raise ValueError(f"sensor must be (columns, rows, polarities), such as (128, 128, 2), got {sensor!r}")
    require_count("frames", frames)
    folder, classes, train, held_out = labelled_files(path, SUFFIXES, "recordings", test)
    read = partial(_frames, sensor=(size[0], size[1], size[2]), frames=frames)
    parts = [(lazy(files, read, keep=keep), labels) for files, labels in (train, held_out)]
    return own_source(folder.name, parts[0], parts[1], classes, where=str(folder))


def _frames(file: Path, *, sensor: tuple[int, int, int], frames: int) -> Tensor:
    events = read_events(file)
    for axis, limit in (("x", sensor[0]), ("y", sensor[1]), ("p", max(sensor[2], 2))):
        if len(events) and not (int(events[axis].min()) >= 0 and int(events[axis].max()) < limit):
            raise ValueError(
                f"{file}: expected {axis} from 0 to {limit - 1}, got {int(events[axis].max())}: see sensor="
            )
    return event_frames(events, sensor, frames)

"""Hand gestures before an event camera: DvsGesture, from its AEDAT 3.1 files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_meta.data._cache import cached_tensors, folder_fingerprint
from lit_meta.data._source import Source, missing

_VERSION = 1  # Of the processing below: raise it with every change, so that no cache goes stale.
_GESTURES = 11
_PIXELS = 128  # Width and height of the camera.
_PARTS, _CELLS = 5, 20  # 5 x 20 x 20 = 2,000 inputs.
_PACKET = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),
        ("ts_offset", "<i4"),
        ("ts_overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)
_POLARITY = 1
_EVENT = np.dtype([("data", "<u4"), ("timestamp", "<i4")])


@dataclass(frozen=True, eq=False)
class Events:
    """Changes of brightness that an event camera reported, in the order of the file.

    Attributes:
        x: column, from the left, (events,).
        y: row, from the top, (events,).
        on: whether the pixel became brighter, (events,).
        time: in microseconds, (events,).
    """

    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    time: np.ndarray

    def between(self, start: int, end: int) -> Events:
        """Those with ``start <= time < end``."""
        inside = (self.time >= start) & (self.time < end)
        return Events(self.x[inside], self.y[inside], self.on[inside], self.time[inside])


def read_aedat(file: Path) -> Events:
    """Reads the polarity events of an AEDAT 3.1 file.

    Lines that begin with ``#`` (the first ``#!AER-DAT3.1``, the last ``#!END-HEADER``), then packets, little-endian: a
    header of 28 bytes (int16 type and source; int32 size of an event, offset of its timestamp, overflow of the timestamps,
    capacity, number of events, number of valid ones), and so many events. A polarity event (type 1) is 8 bytes: 32 bits of
    data (bit 0: valid, bit 1: brighter, from bit 2: y, from bit 17: x) and an int32 timestamp in microseconds, of which the
    overflow counts the multiples of 2³¹. Packets of other types are passed over, and so are events that are not valid.

    Args:
        file: the file.

    Returns:
        The events.

    Raises:
        ValueError: the file is not AEDAT 3.1, is packed in another format than RAW, or is cut off.

    Source:
        iniVation, AEDAT 3.1 (docs.inivation.com, file formats); IBM's description of the data set for the masks of x and y
        (13 bits each).
    """
    content = file.read_bytes()
    if not content.startswith(b"#!AER-DAT3."):
        raise ValueError(f"{file} is not AEDAT 3.1: expected it to begin with #!AER-DAT3.1, got {content[:12]!r}")
    start = 0
    while content[start : start + 1] == b"#":
        end = content.find(b"\n", start) + 1
        line = content[start:end].strip() if end else b""
        if not end:
            raise ValueError(f"{file} is cut off in its header; get it again")
        if line.startswith(b"#Format:") and line.split(b":")[1].strip() != b"RAW":
            raise ValueError(
                f"{file} is packed ({line.decode(errors='replace')}); expected #Format: RAW, so convert it"
            )
        start = end
        if line == b"#!END-HEADER":
            break
    found: list[np.ndarray] = []
    times: list[np.ndarray] = []
    while start < len(content):
        if len(content) - start < _PACKET.itemsize:
            raise ValueError(f"{file} is cut off in the header of a packet, at byte {start}; get it again")
        packet = np.frombuffer(content, _PACKET, count=1, offset=start)[0]
        start += _PACKET.itemsize
        number, size = int(packet["number"]), int(packet["size"])
        if number < 0 or size < 1 or len(content) - start < number * size:
            raise ValueError(
                f"{file} is damaged: at byte {start} a packet says {number} events of {size} bytes, and "
                f"{len(content) - start} bytes follow; get it again"
            )
        if packet["type"] == _POLARITY:
            if size != _EVENT.itemsize:
                raise ValueError(f"{file}: expected polarity events of {_EVENT.itemsize} bytes, got {size}")
            events = np.frombuffer(content, _EVENT, count=number, offset=start)
            found.append(events["data"])
            times.append(events["timestamp"].astype(np.int64) + (int(packet["ts_overflow"]) << 31))
        start += number * size
    data = np.concatenate(found) if found else np.empty(0, np.uint32)
    time = np.concatenate(times) if times else np.empty(0, np.int64)
    valid = (data & 1).astype(bool)
    data, time = data[valid], time[valid]
    return Events(
        ((data >> 17) & 0x1FFF).astype(np.int64), ((data >> 2) & 0x1FFF).astype(np.int64), (data & 2) != 0, time
    )


def event_counts(events: Events, *, start: int, end: int, parts: int = _PARTS, cells: int = _CELLS) -> Tensor:
    """How many events fell into each part of a gesture's duration and each cell of the picture, scaled to [0, 1].

    ``log(1 + n) / log(1 + max n)``, the largest of the same gesture: a sample's features never depend on other samples.
    Both polarities count.

    Args:
        events: any; those outside the gesture are left out.
        start: of the gesture, in microseconds.
        end: likewise.
        parts: equal parts of its duration.
        cells: of a side of the picture; 128 pixels are shared among them as evenly as they divide.

    Returns:
        (parts, cells, cells): time, row, column; zeros where there is no event.

    Raises:
        ValueError: the gesture has no duration, or an event lies outside 128 x 128 pixels.
    """
    if end <= start:
        raise ValueError(f"a gesture ends after it begins, got {start} to {end} microseconds")
    inside = events.between(start, end)
    for name, place in (("x", inside.x), ("y", inside.y)):
        if place.size and place.max() >= _PIXELS:
            raise ValueError(f"expected {name} to be 0..{_PIXELS - 1}, got {place.max()}: not the events of a DVS128")
    part = (inside.time - start) * parts // (end - start)
    index = (part * cells + inside.y * cells // _PIXELS) * cells + inside.x * cells // _PIXELS
    counts = torch.from_numpy(np.bincount(index, minlength=parts * cells * cells).astype(np.float32))
    counts = counts.log1p().reshape(parts, cells, cells)
    return counts / counts.max() if counts.max() > 0 else counts


def read_gestures(file: Path) -> list[tuple[int, int, int]]:
    """Reads which gestures a trial holds.

    Args:
        file: lines ``class,startTime_usec,endTime_usec`` below a line that says so, classes from 1 to 11.

    Returns:
        (label from 0, start, end) for each, in order of time. A gesture that runs into the next ends where that begins: the
        published labels hold such an error (``user22_led``, class 9).

    Raises:
        ValueError: a line that is none of these.
    """
    found = []
    for number, row in enumerate(csv.reader(file.read_text().splitlines()), start=1):
        if number == 1 or not row:
            continue
        try:
            label, start, end = (int(field) for field in row)
        except ValueError:
            raise ValueError(
                f"{file}, line {number}: expected class,start,end as integers, got {','.join(row)!r}"
            ) from None
        if not 1 <= label <= _GESTURES or end <= start:
            raise ValueError(f"{file}, line {number}: expected a class 1..{_GESTURES} and start < end, got {row}")
        found.append((label - 1, start, end))
    found.sort(key=lambda gesture: gesture[1])
    ends = [start for _, start, _ in found[1:]] + [None]
    return [
        (label, start, end if after is None else min(end, after))
        for (label, start, end), after in zip(found, ends, strict=True)
    ]


def load_dvs_gesture(root: Path) -> Source:
    """DvsGesture: 11 gestures of 29 people before a DVS128 under three lights, by the official split over people.

    The published networks have 2,000 inputs; how the events were brought to that number is not published. Here it is 5 equal
    parts of a gesture's duration times 20 x 20 cells, see `event_counts`.

    Args:
        root: a folder with ``DvsGesture/``, as its archive unpacks: ``trials_to_train.txt``, ``trials_to_test.txt``, and for
            every trial that they name ``{trial}.aedat`` and ``{trial}_labels.csv``.

    Returns:
        Samples of shape ``(5, 20, 20)``: time, row, column. Classes are named by ``gesture_mapping.csv`` where that is there.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is damaged.

    Source:
        Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017.
    """
    folder = root / "DvsGesture"
    trials = {part: _trials(folder, part) for part in ("train", "test")}
    needed = [folder / name for names in trials.values() for t in names for name in (t, _labels(t))]
    absent = next((file for file in needed if not file.is_file()), None)
    if absent is not None:
        raise _missing(absent)
    fingerprint = folder_fingerprint(folder, "")

    def build() -> dict[str, Tensor]:
        tensors = {}
        for part, names in trials.items():
            x, y = [], []
            for trial in names:
                events = read_aedat(folder / trial)
                for label, start, end in read_gestures(folder / _labels(trial)):
                    x.append(event_counts(events, start=start, end=end))
                    y.append(label)
            tensors[f"{part}_x"], tensors[f"{part}_y"] = torch.stack(x), torch.tensor(y)
        return tensors

    tensors = cached_tensors(f"dvs-gesture-{_VERSION}-{fingerprint}", build)
    train, test = (tensors["train_x"], tensors["train_y"]), (tensors["test_x"], tensors["test_y"])
    return Source("dvs-gesture", *train, *test, _names(folder))


def _trials(folder: Path, part: str) -> list[str]:
    file = folder / f"trials_to_{part}.txt"
    if not file.is_file():
        raise _missing(file)
    names = file.read_text().split()
    if not names:
        raise ValueError(f"{file} names no trial; get it again")
    return names


def _labels(trial: str) -> str:
    return f"{trial.removesuffix('.aedat')}_labels.csv"


def _names(folder: Path) -> tuple[str, ...]:
    names = {label: str(label) for label in range(1, _GESTURES + 1)}
    file = folder / "gesture_mapping.csv"
    if file.is_file():
        rows = [row for row in csv.reader(file.read_text().splitlines()) if len(row) == 2 and row[1].strip().isdigit()]
        names.update({int(label): name.strip() for name, label in rows if int(label) in names})
    return tuple(names[label] for label in sorted(names))


def _missing(file: Path) -> FileNotFoundError:
    return missing(
        "DvsGesture",
        file,
        "Get DvsGesture.tar.gz (3 GB, CC BY 4.0) from https://research.ibm.com/interactive/dvsgesture/ and unpack it there",
    )

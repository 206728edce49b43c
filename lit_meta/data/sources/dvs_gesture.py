"""Hand gestures recorded by an event camera: DvsGesture, from its AEDAT 3.1 files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.readers.aedat import Events, read_aedat
from lit_meta.data.sources._cache import cached_tensors, folder_fingerprint
from lit_meta.data.sources.base import Source, missing

_VERSION = 1  # Of the processing below: increase it with every change, so that no cache goes stale.
_GESTURES = 11
_PIXELS = 128  # Width and height of the camera.
_PARTS, _CELLS = 5, 20  # 5 x 20 x 20 = 2,000 inputs.


def event_counts(events: Events, *, start: int, end: int, parts: int = _PARTS, cells: int = _CELLS) -> Tensor:
    """Number of events in each part of a gesture's duration and each cell of the image, scaled to [0, 1].

    ``log(1 + n) / log(1 + max n)``, with the maximum over the same gesture: a sample's features never depend on other
    samples. Both polarities count.

    Args:
        events: of the recording; those outside the gesture are ignored.
        start: of the gesture, in microseconds.
        end: of the gesture, in microseconds.
        parts: number of equal parts of the duration.
        cells: number of cells along each side of the image, which share its 128 pixels as evenly as possible.

    Returns:
        (parts, cells, cells): time, row, column; all zeros if there are no events.

    Raises:
        ValueError: the gesture has no duration, or an event lies outside 128 x 128 pixels.
    """
    if end <= start:
        raise ValueError(f"a gesture must end after it begins, got {start} to {end} microseconds")
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
    """Reads the gestures of a trial.

    Args:
        file: a header line, then lines ``class,startTime_usec,endTime_usec`` with classes from 1 to 11.

    Returns:
        (label from 0, start, end) of each gesture, in order of time. A gesture that overlaps the next one ends where that
        begins: the published labels contain such an error (``user22_led``, class 9).

    Raises:
        ValueError: a line of another form.
    """
    gestures = []
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
        gestures.append((label - 1, start, end))
    gestures.sort(key=lambda gesture: gesture[1])
    following = [start for _, start, _ in gestures[1:]] + [None]
    return [
        (label, start, end if after is None else min(end, after))
        for (label, start, end), after in zip(gestures, following, strict=True)
    ]


def load_dvs_gesture(root: Path) -> Source:
    """DvsGesture: 11 gestures by 29 people, recorded by a DVS128 under three lights, with the official split by person.

    The published networks have 2,000 inputs; how the events were reduced to that number is not published. Here it is 5 equal
    parts of a gesture's duration times 20 x 20 cells, see `event_counts`.

    Args:
        root: a folder with the unpacked ``DvsGesture/``: ``trials_to_train.txt``, ``trials_to_test.txt``, and
            ``{trial}.aedat`` and ``{trial}_labels.csv`` for every trial listed there.

    Returns:
        Samples of shape ``(5, 20, 20)``: time, row, column. Classes are named after ``gesture_mapping.csv`` if it exists.

    Raises:
        FileNotFoundError: a file is missing.
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
        raise ValueError(f"{file} lists no trials; download it again")
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
        "Get DvsGesture.tar.gz (3 GB) from https://research.ibm.com/interactive/dvsgesture/ and unpack it there",
    )

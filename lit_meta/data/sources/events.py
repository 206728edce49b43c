"""Public recordings of events: N-MNIST, Spiking Heidelberg Digits, Spiking Speech Commands."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.lazy_samples import lazy
from lit_meta.data.readers.event_frames import event_frames, read_events
from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source, missing
from lit_meta.utils.arguments import require_count
from lit_meta.utils.optional import needed

_NMNIST = (34, 34, 2)
_COCHLEA = (700, 1, 1)


def load_n_mnist(root: Path, frames: int = 10) -> Source:
    """N-MNIST, MNIST before a moving event camera: 60,000 training and 10,000 test recordings.

    Args:
        root: a folder with ``NMNIST/Train/{digit}/*.bin`` and ``NMNIST/Test/{digit}/*.bin``; downloaded there if missing.
        frames: equal parts of a recording's duration.

    Returns:
        Samples of shape ``(frames, 2, 34, 34)``: zeros and ones, read when they are asked for.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file is damaged.

    Source:
        Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades", 2015.
    """
    needed("tonic.io", "events", "N-MNIST")
    fetch("n-mnist", root, ("NMNIST/Train", "NMNIST/Test"), "N-MNIST")
    tensors = []
    for part in ("Train", "Test"):
        files = sorted((root / "NMNIST" / part).glob("[0-9]/*.bin"))
        if not files:
            raise missing("N-MNIST", root / "NMNIST" / part / "0" / "00002.bin", "Unpack Train.zip and Test.zip there")
        labels = torch.tensor([int(file.parent.name) for file in files])
        tensors.append((lazy(files, partial(_read_n_mnist, frames=require_count("frames", frames))), labels))
    return Source("n-mnist", *tensors[0], *tensors[1], tuple(str(digit) for digit in range(10)))


def load_shd(root: Path, frames: int = 20) -> Source:
    """Spiking Heidelberg Digits: the digits in English and German as spikes of 700 channels of a cochlea.

    Args:
        root: a folder with ``SHD/shd_train.h5`` and ``SHD/shd_test.h5``; downloaded there if missing.
        frames: equal parts of a recording's duration.

    Returns:
        Samples of shape ``(frames, 700)``: zeros and ones.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file is damaged.

    Source:
        Cramer et al., "The Heidelberg Spiking Data Sets", IEEE TNNLS 33(7), 2022.
    """
    return _cochlea("shd", "Spiking Heidelberg Digits", root, frames)


def load_ssc(root: Path, frames: int = 20) -> Source:
    """Spiking Speech Commands: 35 words as spikes of 700 channels of a cochlea; the validation part is left out.

    Args:
        root: a folder with ``SSC/ssc_train.h5`` and ``SSC/ssc_test.h5``; downloaded there if missing.
        frames: equal parts of a recording's duration.

    Returns:
        Samples of shape ``(frames, 700)``: zeros and ones, read when they are asked for.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file is damaged.

    Source:
        Cramer et al., "The Heidelberg Spiking Data Sets", IEEE TNNLS 33(7), 2022.
    """
    return _cochlea("ssc", "Spiking Speech Commands", root, frames)


def _read_n_mnist(file: Path, *, frames: int) -> Tensor:
    events = read_events(file)
    for axis, limit in (("x", _NMNIST[0]), ("y", _NMNIST[1])):
        if len(events) and int(events[axis].max()) >= limit:
            raise ValueError(f"{file}: expected {axis} below {limit}, got {int(events[axis].max())}; download it again")
    return event_frames(events, _NMNIST, frames)


def _cochlea(name: str, what: str, root: Path, frames: int) -> Source:
    h5py = needed("h5py", "events", what)
    folder = name.upper()
    files = [f"{folder}/{name}_{part}.h5" for part in ("train", "test")]
    fetch(name, root, tuple(files), what)
    tensors: list[tuple[Tensor, Tensor]] = []
    classes: tuple[str, ...] = ()
    for file in (root / f for f in files):
        try:
            with h5py.File(file, "r") as content:
                labels = torch.from_numpy(np.asarray(content["labels"]).astype(np.int64))
                classes = tuple(key.decode() for key in content["extra/keys"][()])
                spikes = len(content["spikes/times"])
        except (OSError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} is not a file of {what} ({error}): download it again") from None
        if spikes != len(labels):
            raise ValueError(f"{file}: {spikes} recordings and {len(labels)} labels; download it again")
        read = _Spikes(h5py, file, require_count("frames", frames))
        tensors.append((lazy(range(len(labels)), read), labels))
    return Source(name, *tensors[0], *tensors[1], classes)


class _Spikes:
    """Reads one recording of an HDF5 file, which is opened once."""

    def __init__(self, h5py: Any, file: Path, frames: int) -> None:
        self._h5py, self._file, self._frames = h5py, file, frames
        self._opened: Any = None

    def __call__(self, position: int) -> Tensor:
        if self._opened is None:
            self._opened = self._h5py.File(self._file, "r")
        times, units = (np.asarray(self._opened[f"spikes/{key}"][position]) for key in ("times", "units"))
        events = np.zeros(len(times), [("x", np.int64), ("t", np.int64), ("p", np.int64)])
        events["x"], events["t"] = units, np.round(times.astype(np.float64) * 1e6)
        if len(events) and int(events["x"].max()) >= _COCHLEA[0]:
            raise ValueError(
                f"{self._file}, recording {position}: expected channels below 700, got {events['x'].max()}"
            )
        return event_frames(events, _COCHLEA, self._frames).reshape(self._frames, _COCHLEA[0])

"""The Free Spoken Digit Dataset as log-mel spectrograms."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from lit_meta.data.readers.audio import read_audio
from lit_meta.data.sources._cache import cached_tensors, folder_fingerprint
from lit_meta.data.sources.base import Source, missing
from lit_meta.functional.audio import log_mel

_VERSION = 1  # Of the processing below: increase it with every change of the features, so that no cache goes stale.
_FSDD_TEST_INDICES = 5
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav", re.IGNORECASE)


def load_fsdd(root: Path) -> Source:
    """The Free Spoken Digit Dataset: 10 digits x 6 speakers x 50 recordings, as 30 x 30 log-mel spectrograms.

    The official split: recordings 0 to 4 of each digit and speaker are the test set.

    Args:
        root: a folder with ``fsdd/recordings/{digit}_{speaker}_{index}.wav``.

    Returns:
        Samples of shape ``(1, 30, 30)``: one channel, mel bands (low first), time.

    Raises:
        FileNotFoundError: if there are no recordings.
        ValueError: if a recording is not mono, 16 bits, 8 kHz.
    """
    folder = root / "fsdd" / "recordings"
    fingerprint = folder_fingerprint(folder, ".wav") if folder.is_dir() else ""
    if not fingerprint:
        raise missing(
            "the Free Spoken Digit Dataset",
            folder,
            "Copy the folder recordings of https://github.com/Jakobovski/free-spoken-digit-dataset there",
        )
    tensors = cached_tensors(f"fsdd-{_VERSION}-{fingerprint}", lambda: _fsdd_tensors(folder))
    x, y, test = tensors["x"], tensors["y"], tensors["test"].bool()
    return Source("fsdd", x[~test], y[~test], x[test], y[test], tuple(str(digit) for digit in range(10)))


def _fsdd_tensors(folder: Path) -> dict[str, Tensor]:
    features, labels, test = [], [], []
    for file in sorted(folder.glob("*.wav")):
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{file}: expected a name like 7_jackson_32.wav ({{digit}}_{{speaker}}_{{index}}.wav)")
        waveform, rate = read_audio(file)
        if rate != 8000:
            raise ValueError(f"{file}: expected 8000 samples per second, got {rate}; resample it")
        features.append(log_mel(waveform))
        labels.append(int(match.group(1)))
        test.append(int(match.group(3)) < _FSDD_TEST_INDICES)
    return {
        "x": torch.stack(features)[:, None],
        "y": torch.tensor(labels),
        "test": torch.tensor(test, dtype=torch.uint8),
    }

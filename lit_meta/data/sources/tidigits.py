"""TIDigits: spoken digits of over 300 people, from NIST SPHERE files."""

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
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
_RATE = 20_000
# A digit (z: zero, o: oh), and which of the speaker's two recordings of it.
_ONE_DIGIT = re.compile(r"([1-9zo])([ab])\.wav", re.IGNORECASE)
_SEQUENCE = re.compile(r"[1-9zo]+[ab]\.wav", re.IGNORECASE)


def load_tidigits(root: Path) -> Source:
    """The single digits of TIDigits as 30 x 30 log-mel spectrograms, with the official split by speaker.

    Sequences of several digits are left out. The features are those of the other spoken digits (windows of 32 ms every
    10 ms, 30 bands), up to half of this corpus's sample rate of 20 kHz.

    Args:
        root: a folder with ``tidigits/``. Anywhere below it, ``train/`` and ``test/`` hold
            ``{group}/{speaker}/{digits}{a or b}.wav`` as on the discs, for adults, children or both, in lower or upper case.

    Returns:
        Samples of shape ``(1, 30, 30)``: one channel, mel bands (low first), time. Classes 0 to 9 are the digits, with
        "zero" (``z``) as 0, and 10 is "oh" (``o``).

    Raises:
        FileNotFoundError: there are no recordings of single digits for training, or none for testing.
        ValueError: a recording is not uncompressed SPHERE, mono, 16 bits, 20 kHz.

    Source:
        Leonard and Doddington, TIDIGITS, Linguistic Data Consortium LDC93S10, 1993.
    """
    folder = root / "tidigits"
    files = {part: _single_digits(folder, part) for part in ("train", "test")}
    for part, recordings in files.items():
        if not recordings:
            raise missing(
                f"TIDigits ({part})",
                folder / "..." / part / "{group}" / "{speaker}" / "{digit}a.wav",
                "The corpus is LDC93S10 of the Linguistic Data Consortium (https://catalog.ldc.upenn.edu/LDC93S10), under a "
                "licence that forbids passing it on: copy its folders there",
            )
    fingerprint = folder_fingerprint(folder, "")

    def build() -> dict[str, Tensor]:
        tensors = {}
        for part, recordings in files.items():
            tensors[f"{part}_x"] = torch.stack([_features(file) for file in recordings])[:, None]
            tensors[f"{part}_y"] = torch.tensor(["z123456789o".index(file.name[0].lower()) for file in recordings])
        return tensors

    tensors = cached_tensors(f"tidigits-{_VERSION}-{fingerprint}", build)
    train, test = (tensors["train_x"], tensors["train_y"]), (tensors["test_x"], tensors["test_y"])
    return Source("tidigits", *train, *test, _WORDS)


def _single_digits(folder: Path, part: str) -> list[Path]:
    recordings = []
    for file in sorted(folder.rglob("*")):
        above = [parent.lower() for parent in file.relative_to(folder).parts[:-1]]
        if part not in above or file.suffix.lower() != ".wav":
            continue
        if _SEQUENCE.fullmatch(file.name) is None:
            raise ValueError(
                f"{file}: expected a name like 6a.wav or 6z97b.wav (digits, z and o, and the recording a or b)"
            )
        if _ONE_DIGIT.fullmatch(file.name):
            recordings.append(file)
    return recordings


def _features(file: Path) -> Tensor:
    waveform, rate = read_audio(file)
    if rate != _RATE:
        raise ValueError(f"{file}: expected {_RATE} samples per second, got {rate}; resample it")
    return log_mel(waveform, sample_rate=rate, window=640, hop=200, fft_size=1024)

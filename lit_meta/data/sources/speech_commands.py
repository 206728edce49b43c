"""Speech Commands as log-mel spectrograms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lit_meta.data.readers.audio import read_audio
from lit_meta.data.sources._cache import cached_tensors, folder_fingerprint
from lit_meta.data.sources._download import fetch
from lit_meta.data.sources.base import Source
from lit_meta.functional.audio import log_mel

_VERSION = 1  # Of the processing below: increase it with every change of the features, so that no cache goes stale.
_RATE = 16_000


def load_speech_commands(root: Path) -> Source:
    """Speech Commands 0.02, 35 words, as 30 x 30 log-mel spectrograms, with the published test list.

    The recordings of the published validation list are left out, so that hyperparameters can be chosen on them.

    Args:
        root: a folder with ``SpeechCommands/`` as the archive unpacks: a folder of recordings for each word,
            ``validation_list.txt`` and ``testing_list.txt``; downloaded there if missing.

    Returns:
        Samples of shape ``(1, 30, 30)``: one channel, mel bands (low first), time.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a recording is not mono, 16 bits, 16 kHz.

    Source:
        Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv 1804.03209, 2018.
    """
    folder = root / "SpeechCommands"
    lists = ("validation_list.txt", "testing_list.txt")
    fetch("speech-commands", root, tuple(f"SpeechCommands/{name}" for name in lists), "Speech Commands")
    validation, testing = ({line.strip() for line in (folder / name).read_text().split()} for name in lists)
    words = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    fingerprint = folder_fingerprint(folder, ".wav")

    def build() -> dict[str, Tensor]:
        parts: dict[str, tuple[list[Tensor], list[int]]] = {"train": ([], []), "test": ([], [])}
        for label, word in enumerate(words):
            for file in sorted((folder / word).glob("*.wav")):
                name = f"{word}/{file.name}"
                if name not in validation:
                    x, y = parts["test" if name in testing else "train"]
                    x.append(_features(file))
                    y.append(label)
        for part, (x, _) in parts.items():
            if not x:
                raise ValueError(f"{folder} has no recordings for {part}: unpack the archive again")
        return {
            name: value
            for part, (x, y) in parts.items()
            for name, value in ((f"{part}_x", torch.stack(x)[:, None]), (f"{part}_y", torch.tensor(y)))
        }

    tensors = cached_tensors(f"speech-commands-{_VERSION}-{fingerprint}", build)
    train, test = (tensors["train_x"], tensors["train_y"]), (tensors["test_x"], tensors["test_y"])
    return Source("speech-commands", *train, *test, tuple(words))


def _features(file: Path) -> Tensor:
    waveform, rate = read_audio(file)
    if rate != _RATE:
        raise ValueError(f"{file}: expected {_RATE} samples per second, got {rate}; resample it")
    return log_mel(waveform, sample_rate=rate, window=512, hop=160, fft_size=1024)

"""WAV files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_wav(file: Path) -> tuple[Tensor, int]:
    """Reads a mono, 16-bit WAV file.

    Args:
        file: the file.

    Returns:
        The waveform in [-1, 1], ``(time,)``, and the sample rate in Hz.

    Raises:
        ValueError: if the file has more than one channel or another sample width, or is not WAV.
    """
    try:
        with wave.open(str(file), "rb") as recording:
            channels, width = recording.getnchannels(), recording.getsampwidth()
            rate, content = recording.getframerate(), recording.readframes(recording.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} is not a readable WAV file ({error}); download it again") from error
    if channels != 1 or width != 2:
        raise ValueError(f"{file}: expected mono and 16 bits, got {channels} channels and {8 * width} bits; convert it")
    return torch.from_numpy(np.frombuffer(content, "<i2").astype(np.float32)).div_(32768), rate

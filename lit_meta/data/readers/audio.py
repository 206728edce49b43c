"""Recordings: WAV, NIST SPHERE and whatever else libsndfile reads."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from lit_meta.utils.optional import needed

_SPHERE_COUNT = re.compile(rb"\nsample_count -i (\d+)\s")
_SPHERE_ORDER = re.compile(rb"\nsample_byte_format -s\d+ (\S+)\s")


def read_audio(file: Path) -> tuple[Tensor, int]:
    """Reads a mono recording of 16 bits a sample: WAV, FLAC, or uncompressed NIST SPHERE (``.wav`` in corpora of speech).

    Args:
        file: the file.

    Returns:
        The waveform in [-1, 1], ``(time,)``, and the sample rate in Hz.

    Raises:
        ValueError: the file is not a recording, is compressed in a way that libsndfile does not know, is cut off, or has more
            than one channel or another sample width.
    """
    soundfile = needed("soundfile", "audio", "a recording")
    try:
        with soundfile.SoundFile(str(file)) as recording:
            channels, width, rate = recording.channels, recording.subtype, recording.samplerate
            if channels != 1 or width != "PCM_16":
                got = f"{'mono' if channels == 1 else f'{channels} channels'} and {width}"
                raise ValueError(f"{file}: expected mono and 16 bits, got {got}; convert it")
            samples = recording.read(dtype="int16")
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{file} is not a readable recording ({error}); convert it or download it again") from None
    _check_header(file, len(samples))
    return torch.from_numpy(samples.astype("float32")).div_(32768), rate


def _check_header(file: Path, read: int) -> None:
    """Refuses what libsndfile passes over without a word: a file that is cut off, bytes in an order that is none."""
    with file.open("rb") as opened:
        head = opened.read(4096)
    announced = read
    if head.startswith(b"NIST_1A"):
        order, count = _SPHERE_ORDER.search(head), _SPHERE_COUNT.search(head)
        if order and order[1] not in (b"01", b"10"):
            raise ValueError(f"{file}: sample_byte_format must be 01 or 10, got {order[1].decode(errors='replace')}")
        announced = int(count[1]) if count else read
    elif head.startswith(b"RIFF") and (data := head.find(b"data", 12)) >= 0:
        size = int.from_bytes(head[data + 4 : data + 8], "little")
        announced = read if size == 2**32 - 1 else size // 2  # All ones: written to a stream, of unknown length.
    if read < announced:
        raise ValueError(
            f"{file} is cut off: its header announces {announced} samples, but {read} follow; download it again"
        )

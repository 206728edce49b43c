"""NIST SPHERE files, the format of speech corpora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_sphere(file: Path) -> tuple[Tensor, int]:
    """Reads a mono, 16-bit, uncompressed NIST SPHERE file (named ``.wav`` in the corpora that use the format).

    The header is ``NIST_1A``, a line with its length in bytes, then lines ``name -type value`` up to ``end_head``; the rest
    is padding. The samples follow, least significant byte first if ``sample_byte_format`` is ``01``, last if it is ``10``.

    Args:
        file: the file.

    Returns:
        The waveform in [-1, 1], ``(time,)``, and the sample rate in Hz.

    Raises:
        ValueError: the file is not SPHERE, is compressed, has more than one channel or another sample width, or is truncated.

    Source:
        NIST SPHERE Header Structure 1.5 (www.speech.cs.cmu.edu/inner/nist-sphere.html).
    """
    content = file.read_bytes()
    start = content[8:16].strip()
    if not content.startswith(b"NIST_1A\n") or not start.isdigit():
        raise ValueError(
            f"{file} is not NIST SPHERE: expected it to begin with NIST_1A and a length, got {content[:16]!r}"
        )
    text, ended, _ = content[: int(start)].decode("ascii", errors="replace").partition("\nend_head")
    if not ended:
        raise ValueError(f"{file}: its header of {int(start)} bytes has no end_head; download it again")
    fields = {line.split()[0]: line.split(maxsplit=2)[2].strip() for line in text.splitlines() if len(line.split()) > 2}
    coding = fields.get("sample_coding", "pcm")
    if coding != "pcm":
        raise ValueError(f"{file} is compressed ({coding}): convert it, for example with sph2pipe -p -f sph")
    try:
        count, width, rate = (int(fields[name]) for name in ("sample_count", "sample_n_bytes", "sample_rate"))
        channels, order = (
            int(fields.get("channel_count", "1")),
            {"01": "<i2", "10": ">i2"}[fields["sample_byte_format"]],
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file}: its header has a missing or unknown value ({error}); download it again") from None
    if channels != 1 or width != 2:
        raise ValueError(f"{file}: expected mono and 16 bits, got {channels} channels and {8 * width} bits; convert it")
    samples = content[int(start) : int(start) + 2 * count]
    if len(samples) < 2 * count:
        raise ValueError(
            f"{file} is cut off: its header announces {count} samples, but {len(samples) // 2} follow; download it again"
        )
    return torch.from_numpy(np.frombuffer(samples, order).astype(np.float32)).div_(32768), rate

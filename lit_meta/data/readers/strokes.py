"""Pen strokes over time, in Omniglot's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_strokes(file: Path) -> list[np.ndarray]:
    """Reads a drawing as pen strokes.

    Args:
        file: lines ``x,y,t`` (x in pixels, y in pixels below the top edge with a minus sign, t in milliseconds),
            with ``START`` at the beginning and ``BREAK`` after every stroke.

    Returns:
        One float array ``(points, 3)`` of x, y (pixels, downwards) and t (milliseconds) for each stroke.

    Raises:
        ValueError: if a line is none of these, or if there is no stroke.
    """
    strokes: list[np.ndarray] = []
    points: list[list[float]] = []
    for number, line in enumerate([*file.read_text().split(), "BREAK"], start=1):
        if line in ("START", "BREAK"):
            if points:
                strokes.append(np.asarray(points))
            points = []
            continue
        try:
            x, y, t = (float(part) for part in line.split(","))
        except ValueError as error:
            raise ValueError(f"{file}, item {number}: expected x,y,t or START or BREAK, got {line!r}") from error
        points.append([x, -y, t])
    if not strokes:
        raise ValueError(f"{file}: expected at least one stroke, got none; download the file again")
    return strokes

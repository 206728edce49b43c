"""Where a long piece of work is, in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(3.2), duration(95), duration(4000), duration(200000)
        ('3 s', '2 min', '1 h 07 min', '55 h 33 min')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress_line(done: int, total: int, seconds: float, text: str) -> str:
    """What is done, an estimate of the time left, and the last result.

    Args:
        done: parts that are finished.
        total: all parts.
        seconds: since the first part began.
        text: the last part and its result.

    Example:
        >>> progress_line(2, 8, 30.0, "EWC, experience 2: 61.0 %")
        '[2/8, 2 min left] EWC, experience 2: 61.0 %'
        >>> progress_line(8, 8, 120.0, "EWC, experience 8: 40.0 %")
        '[8/8, took 2 min] EWC, experience 8: 40.0 %'
    """
    when = f"took {duration(seconds)}" if done >= total else f"{duration(seconds / max(done, 1) * (total - done))} left"
    return f"[{done}/{total}, {when}] {text}"


def line_by_line(total: int, write: Callable[[str], object] | None = None) -> Callable[[str], None]:
    """A function that says one line for every part that is finished, on the error stream unless told otherwise.

    Args:
        total: all parts.
        write: takes each line, with its end.

    Returns:
        To be called after each part, with the part and its result.
    """
    started, done = time.monotonic(), 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        line = progress_line(done, total, time.monotonic() - started, text) + "\n"
        (write or sys.stderr.write)(line)
        if write is None:
            sys.stderr.flush()

    return advance

"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from pathlib import Path
from typing import Any

_WORTH = 2**26  # Bytes: less is kept for what comes next.


class _Heap(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "free", "top")
    ]


def return_free_memory() -> None:
    """Gives free pages of the heap back to the system where there are many, so that a large block can take their place.

    glibc keeps freed blocks of up to 32 MB for itself, and what is still in use lies scattered between them: after batches of
    thousands of features, hundreds of MB that no other block fits into. With other C libraries nothing happens.

    Example:
        >>> return_free_memory()
    """
    library = _glibc()
    if library is not None and library.mallinfo2().free > _WORTH:
        library.malloc_trim(0)


def release() -> None:
    """Releases what a learner that is no longer used has held.

    A Trainer and its module refer to each other, so the next learner would begin beside its memory.

    Example:
        >>> release()
    """
    gc.collect()
    return_free_memory()


def peak_bytes() -> int | None:
    """The most memory that this process has had at any time; None where the system does not tell.

    Linux's ``getrusage`` counts what the parent process had when it started this one, so that a small process of a large
    one looks large; ``/proc`` does not.

    Example:
        >>> peak = peak_bytes()
        >>> peak is None or peak > 10_000_000
        True
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim")):
        return None
    library.mallinfo2.restype = _Heap
    return library

"""Speed and memory, side by side with what people would use instead.

A benchmark is a declaration: a subject, a baseline and a target for their ratio. To add one, put a file into this package
that defines ``BENCHMARKS``, a tuple of `Benchmark` and `Scaling`; the command ``lit-meta bench`` finds it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
from collections.abc import Sequence

from lit_meta.bench._benchmark import Benchmark, Clock, Result, Scaling, ScalingResult, Work
from lit_meta.utils.registry import unknown


def benchmarks() -> dict[str, Benchmark | Scaling]:
    """All benchmarks declared in this package, by id.

    Raises:
        ValueError: two have the same id.
    """
    by_id: dict[str, Benchmark | Scaling] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        for declared in importlib.import_module(f"{__name__}.{module.name}").BENCHMARKS:
            if declared.id in by_id:
                raise ValueError(f"two benchmarks have the id {declared.id!r}")
            by_id[declared.id] = declared
    return by_id


# One or two of each group, which together take less than two minutes of one core.
BRIEF = (
    "startup/list",
    "overhead/session",
    "rules/ewc",
    "rules/si",
    "rules/ewc-avalanche-5",
    "rules/fisher",
    "naca/1-hidden",
    "snn/memory",
    "stream/avalanche",
)


def choose(names: Sequence[str]) -> list[Benchmark | Scaling]:
    """Selects benchmarks by id or group.

    Args:
        names: ids, or groups (the part of an id before the slash); all benchmarks if empty.

    Returns:
        The benchmarks, in the order in which they are declared.

    Raises:
        KeyError: an unknown name; the message suggests the nearest.
    """
    known = benchmarks()
    groups = {id.split("/")[0] for id in known}
    for name in names:
        if name not in known and name not in groups:
            raise unknown("benchmark", name, [*known, *groups], listed_by="lit-meta bench --list")
    return [b for id, b in known.items() if not names or id in names or id.split("/")[0] in names]


def machine() -> dict[str, object]:
    """The machine and the versions that the numbers were measured with."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


__all__ = [
    "BRIEF",
    "Benchmark",
    "Clock",
    "Result",
    "Scaling",
    "ScalingResult",
    "Work",
    "benchmarks",
    "choose",
    "machine",
]

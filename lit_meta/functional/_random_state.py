"""The global random generators of PyTorch, NumPy and Python."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restores the state of the global generators of PyTorch, NumPy and Python.

    Example:
        >>> before = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    numpy: Any = sys.modules.get("numpy")  # If it was never imported, nothing draws from it.
    devices = torch.cuda.is_available() and torch.cuda.is_initialized()
    state = torch.get_rng_state(), torch.cuda.get_rng_state_all() if devices else [], random.getstate()
    arrays = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(state[0])
        if state[1]:
            torch.cuda.set_rng_state_all(state[1])
        random.setstate(state[2])
        if arrays is not None:
            numpy.random.set_state(arrays)


def seed_generators(seed: int, devices: Sequence[int] = ()) -> None:
    """Seeds the generators of Python, NumPy, the CPU and these CUDA devices, and leaves those of other devices alone."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)

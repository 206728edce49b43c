"""The global random state of a stream: seeded in every experience, saved inside of one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lit_meta.functional._random_state import random_state_kept


def random_state() -> dict[str, Any]:
    """The state of the global generators of Python, NumPy and PyTorch, of plain values, arrays and tensors."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - its global generator is meant.
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, all global generators begin with a seed; then they are as before.

    Example:
        >>> draws = []
        >>> for _ in range(2):
        ...     with seeded(3):
        ...         draws.append((random.random(), np.random.rand(), float(torch.rand(()))))
        >>> draws[0] == draws[1]
        True
    """
    with random_state_kept(), torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        yield

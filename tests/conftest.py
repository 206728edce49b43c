"""What the tests share: a small network, a small stream, and rules as the registry's configs give them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)  # Tests run side by side; and one thread adds in one order.


@pytest.fixture
def data_root() -> Path:
    root = os.environ.get("LIT_META_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs data: set LIT_META_DATA to a folder with MNIST/raw and the other sets")
    return Path(root)


@pytest.fixture
def make_network():
    """A two-layer classifier of four classes on eight inputs, with the same weights every time."""

    def make(seed: int = 0) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))

    return make


@pytest.fixture
def two_experiences() -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels of two experiences of two classes each."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 36, 8, generator=generator)
    y = torch.stack([torch.randint(0, 2, (36,), generator=generator), torch.randint(2, 4, (36,), generator=generator)])
    return list(zip(x, y, strict=True))

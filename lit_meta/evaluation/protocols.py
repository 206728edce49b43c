"""How test batches are made, by name."""

from __future__ import annotations

from typing import Literal

Protocol = Literal["standard", "paper"]
PROTOCOLS: tuple[Protocol, ...] = ("standard", "paper")

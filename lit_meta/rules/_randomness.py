"""Random numbers of a rule's own, independent of the host and of other users of the global generators."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_meta.core.state import State


def draw_normal(state: State, like: Sequence[Tensor], seed: int, copies: int | None = None) -> list[Tensor]:
    """Standard normal numbers, from a generator whose state is stored in the rule's state.

    A run resumed from a saved state therefore draws the same numbers as an uninterrupted one. On another kind of device than
    where it was saved (a GPU, and then a processor), it draws others, that depend on the saved state alone.

    Args:
        state: the rule's state; its quantity ``"generator"`` is written.
        like: tensors on one device, whose shapes and dtypes the numbers take.
        seed: of the first draw.
        copies: how many for each entry, as a first dimension; None without that dimension.
    """
    generator = torch.Generator(like[0].device)
    saved = state.overall["generator"].cpu() if "generator" in state else None
    if saved is None:
        generator.manual_seed(seed)
    elif saved.shape == generator.get_state().shape:
        generator.set_state(saved)
    else:  # Of another kind of device, whose generator cannot go on here.
        generator.manual_seed(zlib.crc32(saved.numpy().tobytes()))
    lead = () if copies is None else (copies,)
    drawn = [torch.randn((*lead, *t.shape), generator=generator, device=t.device, dtype=t.dtype) for t in like]
    state.overall["generator"] = generator.get_state()
    return drawn

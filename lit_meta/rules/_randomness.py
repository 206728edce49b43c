"""Random numbers of a rule's own, independent of the host and of other users of the global generators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_meta.core.state import State


def draw_normal(state: State, like: Sequence[Tensor], seed: int, copies: int | None = None) -> list[Tensor]:
    """Standard normal numbers, from a generator whose state is stored in the rule's state.

    A run resumed from a saved state therefore draws the same numbers as an uninterrupted one.

    Args:
        state: the rule's state; its quantity ``"generator"`` is written.
        like: tensors on one device, whose shapes and dtypes the numbers take.
        seed: of the first draw.
        copies: how many for each entry, as a first dimension; None without that dimension.
    """
    generator = torch.Generator(like[0].device)
    if "generator" in state:
        generator.set_state(state.overall["generator"].cpu())
    else:
        generator.manual_seed(seed)
    lead = () if copies is None else (copies,)
    drawn = [torch.randn((*lead, *t.shape), generator=generator, device=t.device, dtype=t.dtype) for t in like]
    state.overall["generator"] = generator.get_state()
    return drawn

"""A stream whose experiences also hold stored samples of earlier ones: the baseline that keeps data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_meta.data.tensors import joined, train_parts, with_train
from lit_meta.data.view import TensorView

_SEED_STRIDE = 1_000_003


def with_replay(benchmark: Any, samples: int, *, seed: int = 0) -> Any:
    """The same stream, every training experience joined by stored samples of the experiences before it.

    The buffer holds at most ``samples``, as many of each earlier experience, and those of one experience are a subset of what
    was kept before. Half of what is learned is new and half is stored: the smaller part is repeated, as Avalanche's
    ``ReplayPlugin`` does within each batch. What trains on the result needs no change, with a rule or without one.

    Args:
        benchmark: an Avalanche benchmark, from `lit_meta.data.scenario` or from anywhere else, of two training experiences or
            more.
        samples: that the buffer may hold, at least one for each earlier experience.
        seed: of which samples are kept.

    Returns:
        A benchmark with other training experiences; its further streams and attributes are the same as before.

    Raises:
        ValueError: a single training experience, which has no earlier ones; a stream that provides the task of every sample,
            since stored samples have tasks of their own; a buffer too small.

    Source:
        Rolnick et al., "Experience Replay for Continual Learning", NeurIPS 2019; the buffer is balanced by experience as in
        Avalanche's ``ExperienceBalancedBuffer``.

    Example:
        >>> from lit_meta.data import scenario
        >>> benchmark = with_replay(scenario("split-digits", experiences=5), 40)
        >>> from lit_meta.data.tensors import bulk_view
        >>> view = bulk_view(benchmark.train_stream[1])
        >>> len(view.targets.unique()), len(view) == 2 * len(scenario("split-digits", experiences=5).train_stream[1].dataset)
        (4, True)
    """
    experiences = list(benchmark.train_stream)
    if len(experiences) < 2:
        raise ValueError(
            "replay needs a stream of two training experiences or more: a single one has nothing to repeat"
        )
    if getattr(benchmark, "form", "") == "task":
        raise ValueError("replay mixes samples of several tasks, and this stream provides the task of each experience")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < len(experiences) - 1:
        raise ValueError(
            f"replay must be a number of samples, at least one for each of {len(experiences) - 1} earlier experiences, got "
            f"{samples!r}"
        )
    parts = train_parts(benchmark)
    orders = [_generated(len(part), seed, index) for index, part in enumerate(parts)]
    train = [parts[0]]
    for index in range(1, len(parts)):
        kept = [order[: samples // index] for order in orders[:index]]
        buffer = joined([_chosen(part, order) for part, order in zip(parts[:index], kept, strict=True)])
        size = max(len(parts[index]), len(buffer))
        shuffled = _generated(len(buffer), seed, len(parts) + index)
        train.append(joined([_repeated(parts[index], orders[index], size), _repeated(buffer, shuffled, size)]))
    return with_train(benchmark, train)


def buffer_bytes(benchmark: Any, samples: int) -> int:
    """The bytes that a buffer of this many samples takes, labels included.

    Example:
        >>> from lit_meta.data import scenario
        >>> buffer_bytes(scenario("split-digits"), 10)  # 64 pixels in float32 and a label in int64
        2640
    """
    from lit_meta.data.module import experience_tensors

    experiences = list(benchmark.train_stream)
    x, y = experience_tensors(experiences[0])
    stored = min(samples, sum(len(experience.dataset) for experience in experiences[:-1]))
    return stored * (x[0].numel() * x.element_size() + y.element_size())


def _generated(size: int, seed: int, index: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed + _SEED_STRIDE * (index + 1)))


def _chosen(part: Any, positions: Tensor) -> Any:
    if not isinstance(part, TensorView):
        return part.subset(positions.tolist())
    group = None if part.group is None else part.group[positions]
    return TensorView(part.x, part.y, part.index[positions], part.permutations, group, change=part.change)


def _repeated(part: Any, order: Tensor, size: int) -> Any:
    return part if len(part) == size else _chosen(part, order[torch.arange(size) % len(part)])

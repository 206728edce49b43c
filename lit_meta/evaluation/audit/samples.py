"""The samples of an audit: all test experiences of a scenario, or some samples of every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def samples_of(scenario: Any) -> tuple[Tensor, Tensor]:
    """Inputs and targets of all test experiences together.

    Args:
        scenario: a scenario's name, an Avalanche benchmark, or a sequence of (inputs, targets) pairs.

    Returns:
        Inputs (samples, ...) and targets (samples,).

    Raises:
        TypeError: something else.
        ValueError: an experience without samples, or with a different number of targets.
    """
    from lit_meta.data import experience_tensors
    from lit_meta.data import scenario as make_scenario

    if isinstance(scenario, str):
        scenario = make_scenario(scenario)
    if hasattr(scenario, "test_stream"):
        pairs = [experience_tensors(experience) for experience in scenario.test_stream]
    elif isinstance(scenario, Sequence) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in scenario
    ):
        pairs = list(scenario)
    else:
        raise TypeError(
            "a scenario is a name, a benchmark with a test_stream, or a sequence of (inputs, targets) pairs, got "
            f"{type(scenario).__name__}"
        )
    if not pairs or any(len(x) != len(y) or len(y) == 0 for x, y in pairs):
        raise ValueError("every test experience needs samples, and one target for each")
    return torch.cat([x for x, _ in pairs]), torch.cat([y.long() for _, y in pairs])


def stratified_subset(targets: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` samples spread over the classes as evenly as their sizes allow.

    Args:
        targets: (samples,), integer labels.
        count: number of samples; all if there are fewer.
        generator: of the draw.

    Returns:
        (count,), in ascending order.

    Example:
        >>> chosen = stratified_subset(torch.tensor([0] * 90 + [1] * 10), 12, torch.Generator())
        >>> (chosen >= 90).sum()
        tensor(6)
    """
    drawn = torch.randperm(len(targets), generator=generator)
    by_class = drawn[torch.argsort(targets[drawn], stable=True)]
    sizes = torch.unique(targets, return_counts=True)[1]
    # The rank of a sample within its class: the first of every class, then the second of every class, ...
    rank = torch.cat([torch.arange(int(size)) for size in sizes])
    return by_class[torch.argsort(rank, stable=True)][:count].sort().values

"""The stages of a network, found by running it once, and what is kept of their outputs: mean, deviation, grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.utils.registry import unknown

Statistic = Literal["mean", "std", "grid"]
GRID = 2  # Cells a side.


class Stage(NamedTuple):
    """One stage.

    Attributes:
        name: of the module whose output is taken.
        layout: of that output: ``"channels_first"`` (batch, channels, height, width), ``"channels_last"`` or ``"tokens"``
            (batch, tokens, channels).
        channels: how many.
    """

    name: str
    layout: str
    channels: int


class Probe(NamedTuple):
    """What one pass of an example shows.

    Attributes:
        output: the network's own.
        stages: of every module whose output is a map or tokens, the last time it ran.
        types: of these modules, where they have children.
        sizes: places of each stage's output.
    """

    output: Any
    stages: dict[str, Stage]
    sizes: dict[str, int]
    types: dict[str, type[nn.Module]]


def probe(network: nn.Module, example: Tensor) -> Probe:
    """Runs an example and notes what every module returns."""
    stages: dict[str, Stage] = {}
    sizes: dict[str, int] = {}
    types: dict[str, type[nn.Module]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, returned: Any) -> None:
            output = tensor_of(returned)
            if output is None or output.dim() not in (3, 4) or name == "":
                return
            if output.dim() == 3:
                stage = Stage(name, "tokens", output.shape[2])
            elif output.shape[1] == output.shape[2] != output.shape[3]:
                stage = Stage(name, "channels_last", output.shape[3])
            else:
                stage = Stage(name, "channels_first", output.shape[1])
            stages.pop(name, None)  # In the order of completion.
            stages[name], sizes[name] = stage, output[0].numel() // stage.channels
            if next(module.children(), None) is not None:
                types[name] = type(module)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        with torch.inference_mode():
            return Probe(network(example), stages, sizes, types)
    finally:
        for handle in handles:
            handle.remove()


def find_stages(seen: Probe) -> list[Stage]:
    """The stages of a network, from its input to its output.

    They are the children of one module, that whose children give maps of the most sizes: the last child of each size (in
    timm's and torchvision's convolutional networks: what their papers call stages). Where all children give the same size, as
    in transformers, every child is a stage.
    """
    families: dict[str, list[str]] = {}
    for name in (name for name, size in seen.sizes.items() if size > 1):
        families.setdefault(name.rpartition(".")[0], []).append(name)
    if not families:
        return []

    def alike(parent: str) -> list[str]:
        """The children of the type that most of them have, blocks only."""
        by_type: dict[type[nn.Module], list[str]] = {}
        for name in (name for name in families[parent] if name in seen.types):
            by_type.setdefault(seen.types[name], []).append(name)
        return max(by_type.values(), key=len, default=[])

    def rank(parent: str) -> tuple[int, int, int]:
        different = len({seen.sizes[name] for name in families[parent]})
        return different if different > 2 else 1, len(alike(parent)) if different == 1 else 0, -parent.count(".")

    parent = max(families, key=rank)
    last = {seen.sizes[name]: name for name in families[parent]}
    return [seen.stages[name] for name in (last.values() if len(last) > 2 else alike(parent) or last.values())]


def choose_stages(seen: Probe, depths: int | Sequence[str | int] | None) -> list[Stage]:
    """The stages that are asked for.

    Args:
        seen: what an example showed.
        depths: how many, evenly spaced up to the last one; or their names or positions; or None.

    Raises:
        ValueError: more than there are, or a position that does not exist.
        KeyError: no module of that name gives a map or tokens.
        TypeError: another form.
    """
    if depths is None:
        return []
    stages = find_stages(seen)
    if isinstance(depths, (bool, str)):
        raise TypeError(f"depths must be a whole number or a list of names or positions, got {depths!r}")
    if isinstance(depths, int):
        if not 1 <= depths <= len(stages):
            raise ValueError(f"depths must be from 1 to {len(stages)}, the network's number of stages, got {depths}")
        return [stages[round((i + 1) * len(stages) / depths) - 1] for i in range(depths)]
    chosen = []
    for depth in depths:
        if isinstance(depth, int) and not isinstance(depth, bool):
            if not -len(stages) <= depth < len(stages):
                raise ValueError(f"there is no stage {depth}: the network has {len(stages)}, {_names(stages)}")
            chosen.append(stages[depth])
        elif depth in seen.stages:
            chosen.append(seen.stages[str(depth)])
        else:
            raise unknown("stage", depth, [*(s.name for s in stages), *seen.stages])
    repeated = [stage.name for i, stage in enumerate(chosen) if stage in chosen[:i]]
    if repeated or not chosen:
        raise ValueError(f"depths names {repeated[0]!r} twice" if repeated else "depths is empty: None takes no stage")
    return chosen


def _names(stages: Sequence[Stage]) -> str:
    return ", ".join(stage.name for stage in stages)


def check_statistics(statistics: Sequence[str], stages: Sequence[Stage]) -> tuple[str, ...]:
    """Checks the statistics of stages.

    Raises:
        ValueError: an unknown one, none, one twice, or a grid of tokens.
    """
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    if not names or not set(names) <= set(get_args(Statistic)) or len(set(names)) < len(names):
        raise ValueError(f"statistics must be different ones of {', '.join(get_args(Statistic))}, got {statistics!r}")
    tokens = [stage.name for stage in stages if stage.layout == "tokens"]
    if "grid" in names and tokens:
        raise ValueError(f"a grid needs a map, and {tokens[0]!r} gives tokens: take mean or std")
    return names


def statistics_of(output: Tensor, layout: str, statistics: Sequence[str]) -> list[Tensor]:
    """Statistics of a stage's output over its places.

    Args:
        output: in that layout.
        layout: see `Stage`.
        statistics: ``"mean"``, ``"std"`` (population deviation) or ``"grid"`` (means of 2 x 2 cells).

    Returns:
        For each statistic (batch, channels), for the grid (batch, 4 · channels).

    Example:
        >>> x = torch.tensor([[[[1.0, 1.0], [3.0, 3.0]]]])
        >>> [s.tolist() for s in statistics_of(x, "channels_first", ("mean", "std", "grid"))]
        [[[2.0]], [[1.0]], [[1.0, 1.0, 3.0, 3.0]]]
    """
    x = {"channels_first": (0, 1, 2, 3), "channels_last": (0, 3, 1, 2), "tokens": (0, 2, 1)}[layout]
    maps = output.permute(x)
    flat, kept = maps.flatten(2), []
    for statistic in statistics:
        if statistic == "mean":
            kept.append(flat.mean(2))
        elif statistic == "std":
            kept.append(flat.std(2, correction=0))
        else:
            kept.append(F.adaptive_avg_pool2d(maps, GRID).flatten(1))
    return kept


def tensor_of(returned: Any) -> Tensor | None:
    """The tensor in what a module returns: itself, the first of a tuple, or the last hidden state."""
    if isinstance(returned, tuple) and returned:
        returned = returned[0]
    returned = getattr(returned, "last_hidden_state", returned)
    return returned if isinstance(returned, Tensor) else None


@contextmanager
def tapped(network: nn.Module, stages: Sequence[Stage], statistics: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the statistics of stages by name, while the network runs."""
    kept: dict[str, list[Tensor]] = {}

    def keep(stage: Stage) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, returned: Any) -> None:
            output = tensor_of(returned)
            if output is not None:
                # At once: a layer that follows may work in place.
                kept[stage.name] = statistics_of(output, stage.layout, statistics)

        return hook

    handles = [network.get_submodule(stage.name).register_forward_hook(keep(stage)) for stage in stages]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()

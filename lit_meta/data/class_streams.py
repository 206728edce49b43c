"""Streams in which classes arrive unequally, mixed, or more than once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lit_meta.data._building import class_order_of, described, groups_of, loaded
from lit_meta.data._scaling import Standardize
from lit_meta.data.scenarios import split
from lit_meta.data.sources.base import Source
from lit_meta.data.view import TensorView
from lit_meta.utils.arguments import require_count, require_in
from lit_meta.utils.specs import Specification


def unequal(
    source: Specification | Source,
    *,
    experiences: int = 5,
    seed: int = 0,
    validation: float = 0.0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> Any:
    """Class-incremental, with a random number of new classes in each experience, at least one.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: length of the stream, at most the number of classes.
        seed: determines the sizes, the order of the classes and the validation samples.
        validation: as of `split`.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: more experiences than classes.
    """
    data = loaded(source, root)
    generator = torch.Generator().manual_seed(seed)
    sizes = _random_sizes(
        len(data.classes), require_count("experiences", experiences), generator, f"unequal-{data.name}"
    )
    benchmark = split(
        data,
        sizes=sizes,
        seed=seed,
        validation=validation,
        input_range=input_range,
        standardize=standardize,
    )
    benchmark.name = f"unequal-{data.name}"
    return benchmark


def blurry(
    source: Specification | Source,
    *,
    experiences: int = 5,
    disjoint: float = 0.5,
    blurred: float = 0.1,
    seed: int = 0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> Any:
    """Si-Blurry: some classes are seen in one experience only, samples of the others are scattered over all of them.

    A share ``disjoint`` of the classes is learned in one experience each. Of every other class a share ``blurred`` of the
    samples goes to random experiences, the rest to the one that the class belongs to. How many classes belong to an experience
    is random, at least one. A test experience holds the classes that belong to it.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: length of the stream.
        disjoint: the share m of disjoint classes, from 0 to 1.
        blurred: the share n of scattered samples of a blurry class, from 0 to 1.
        seed: determines which classes are disjoint, where classes belong, and which samples are scattered.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: an argument out of range, or more experiences than classes.

    Source: Moon, Park, Kim & Park, Online class incremental learning on stochastic blurry task boundary via mask and visual
        prompt tuning, ICCV 2023. There a sample is scattered within an online stream; here, among experiences.
    """
    for name, share in (("disjoint", disjoint), ("blurred", blurred)):
        require_in(name, share, 0.0, 1.0)
    data = loaded(source, root, 0.0, input_range, standardize)
    generator = torch.Generator().manual_seed(seed)
    length = require_count("experiences", experiences)
    order = class_order_of(data, None, generator)
    sizes = _random_sizes(len(order), length, generator, f"blurry-{data.name}")
    home = torch.empty(len(order), dtype=torch.long)
    home[torch.tensor(order)] = torch.repeat_interleave(torch.arange(length), torch.tensor(sizes))
    is_disjoint = torch.zeros(len(order), dtype=torch.bool)
    is_disjoint[torch.randperm(len(order), generator=generator)[: round(disjoint * len(order))]] = True
    place = home[data.train_y]
    scattered = (torch.rand(len(place), generator=generator) < blurred) & ~is_disjoint[data.train_y]
    place = torch.where(scattered, torch.randint(length, place.shape, generator=generator), place)
    streams = {
        "train": [TensorView(data.train_x, data.train_y, (place == i).nonzero().flatten()) for i in range(length)],
        "test": groups_of(data.test_x, data.test_y, home, length),
    }
    return described(streams, f"blurry-{data.name}", "class", data.classes, order, data)


def repeated(
    source: Specification | Source,
    *,
    experiences: int = 10,
    slots: int = 2,
    seed: int = 0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> Any:
    """Class-incremental with repetition: every experience has a few classes, and a class returns with other samples.

    By the slot-based generator: the stream has ``experiences`` times ``slots`` places, each class takes as many of them as
    every other (up to one), and its samples are divided among them. A test experience holds one class.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: length of the stream.
        slots: classes in an experience.
        seed: determines the places and the division of samples.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: fewer places than classes, or more slots than classes.

    Source: Hemati, Cossu, Carta, Hurtado, Pellegrini, Bacciu, Lomonaco & Borth, Class-incremental learning with repetition,
        CoLLAs 2023, the generator G_slot.
    """
    data = loaded(source, root, 0.0, input_range, standardize)
    length, classes = require_count("experiences", experiences), len(data.classes)
    if not isinstance(slots, int) or not 1 <= slots <= classes or slots * length < classes:
        raise ValueError(
            f"repeated-{data.name}: slots must be from {-(-classes // length)} to {classes}, so that {length} experiences show "
            f"all {classes} classes, got {slots!r}"
        )
    generator = torch.Generator().manual_seed(seed)
    shown: list[list[int]] = []
    times = torch.zeros(classes)
    for _ in range(length):
        # Those shown least often so far, ties at random: all classes appear before one returns.
        ranks = times + torch.rand(classes, generator=generator) * 0.5
        chosen = ranks.argsort()[:slots]
        times[chosen] += 1
        shown.append(chosen.tolist())
    shown = [shown[i] for i in torch.randperm(length, generator=generator).tolist()]
    shares = {}
    for label in range(classes):
        members = (data.train_y == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        shares[label] = iter(members.tensor_split(int(times[label])))
    indices = [torch.cat([next(shares[label]) for label in labels]).sort().values for labels in shown]
    order = tuple(dict.fromkeys(label for labels in shown for label in labels))
    streams = {
        "train": [TensorView(data.train_x, data.train_y, index) for index in indices],
        "test": groups_of(data.test_x, data.test_y, torch.arange(classes), classes),
    }
    return described(streams, f"repeated-{data.name}", "class", data.classes, order, data)


def _random_sizes(total: int, parts: int, generator: torch.Generator, what: str) -> list[int]:
    """Random positive numbers with a given sum."""
    if parts > total:
        raise ValueError(f"{what} has {total} classes, too few for {parts} experiences: choose fewer experiences")
    cuts = (torch.randperm(total - 1, generator=generator)[: parts - 1] + 1).sort().values.tolist()
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]

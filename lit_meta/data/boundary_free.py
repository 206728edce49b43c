"""Streams of classes in which nobody says where one experience ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lit_meta.data._building import class_order_of, groups_of, loaded
from lit_meta.data._scaling import Standardize
from lit_meta.data.lazy import LazyBenchmark, LazyStream
from lit_meta.data.sources.base import Source
from lit_meta.data.view import TensorView
from lit_meta.utils.arguments import require_count
from lit_meta.utils.specs import Specification


def online(
    source: Specification | Source,
    *,
    experiences: int | None = None,
    samples: int = 10,
    seed: int = 0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> LazyBenchmark:
    """Class-incremental, a few samples at a time, and nobody says where one group of classes ends and the next begins.

    Train it with ``max_epochs=1``: each sample is seen once. Rules that consolidate at boundaries are refused.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: number of groups that the classes are divided into, and of test experiences; by default one a class.
        samples: in an experience of the training stream.
        seed: determines the order of the classes, and of the samples within a group.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        A lazy benchmark, with ``boundaries`` false; see `lit_meta.data.lazy`.

    Raises:
        ValueError: an argument out of range.

    Source: Aljundi, Kelchtermans & Tuytelaars, Task-free continual learning, CVPR 2019.
    """
    data = loaded(source, root, 0.0, input_range, standardize)
    generator = torch.Generator().manual_seed(seed)
    order = class_order_of(data, None, generator)
    length = len(order) if experiences is None else require_count("experiences", experiences)
    if length > len(order):
        raise ValueError(
            f"online-{data.name} has {len(order)} classes, too few for {length} groups: choose fewer experiences"
        )
    chunk = require_count("samples", samples)
    home = torch.empty(len(order), dtype=torch.long)
    for position, group in enumerate(torch.tensor(order).tensor_split(length)):
        home[group] = position
    shuffled = torch.randperm(len(data.train_y), generator=generator)
    stream = shuffled[home[data.train_y[shuffled]].argsort(stable=True)]
    tests = groups_of(data.test_x, data.test_y, home, length)
    return LazyBenchmark(
        LazyStream(
            -(-len(stream) // chunk),
            lambda i: TensorView(data.train_x, data.train_y, stream[i * chunk : (i + 1) * chunk]),
        ),
        LazyStream(length, tests.__getitem__),
        name=f"online-{data.name}",
        form="class",
        classes=len(data.classes),
        class_names=data.classes,
        class_order=order,
        input_shape=data.input_shape,
    )


def unbounded(
    source: Specification | Source,
    *,
    experiences: int = 1000,
    samples: int = 100,
    period: int = 1000,
    seed: int = 0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> LazyBenchmark:
    """A stream without an end or a boundary: which classes are frequent changes slowly, for ever.

    Class c has the weight ``exp(3 sin(2 pi (i / period + phase_c)))`` in experience i, with random phases; samples are drawn
    with replacement. A longer stream of the same seed begins with the shorter one, and its length costs nothing. All test
    samples are one test experience.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: where to stop.
        samples: in an experience.
        period: experiences until the same classes are frequent again.
        seed: determines phases and draws.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        A lazy benchmark, with ``boundaries`` false; see `lit_meta.data.lazy`.

    Raises:
        ValueError: an argument out of range.
    """
    data = loaded(source, root, 0.0, input_range, standardize)
    length, size, cycle = (
        require_count(name, n) for n, name in ((experiences, "experiences"), (samples, "samples"), (period, "period"))
    )
    classes = len(data.classes)
    phases = torch.rand(classes, generator=torch.Generator().manual_seed(seed))
    members = [(data.train_y == label).nonzero().flatten() for label in range(classes)]
    sizes = torch.tensor([len(m) for m in members])
    table = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)

    def view(position: int) -> TensorView:
        generator = torch.Generator().manual_seed((seed + 1) * 2_147_483_647 + position)
        weights = (3 * torch.sin(2 * torch.pi * (position / cycle + phases))).exp()
        labels = torch.multinomial(weights, size, replacement=True, generator=generator)
        within = (torch.rand(size, generator=generator) * sizes[labels]).long().minimum(sizes[labels] - 1)
        return TensorView(data.train_x, data.train_y, table[labels, within])

    return LazyBenchmark(
        LazyStream(length, view),
        LazyStream(1, lambda _: TensorView(data.test_x, data.test_y, torch.arange(len(data.test_y)))),
        name=f"unbounded-{data.name}",
        form="class",
        classes=classes,
        class_names=data.classes,
        class_order=tuple(range(classes)),
        input_shape=data.input_shape,
    )

"""Continual-learning scenarios over the data sources, as Avalanche benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_meta.data._building import class_order_of, described, loaded, parts_of
from lit_meta.data._scaling import Standardize
from lit_meta.data.registry import SCENARIOS, scenario_spec
from lit_meta.data.sources.base import Source
from lit_meta.data.view import TensorView, shifted
from lit_meta.utils.arguments import require_count
from lit_meta.utils.specs import Specification, build

Form = Literal["class", "domain", "task"]


def scenario(spec: Specification | None = None, **arguments: Any) -> Any:
    """Builds an Avalanche benchmark: a stream of training experiences and one of test experiences.

    Args:
        spec: one of `scenario_names`, such as ``"split-digits"`` (see `split`) or ``"permuted-mnist"`` (see `permuted`);
            ``{"name": ..., arguments}``; or ``{"class_path": ..., "init_args": ...}`` of a function that returns a benchmark.
        **arguments: of the scenario, such as ``experiences=5`` or ``seed=1``, where the spec does not give them; ``name`` in
            place of ``spec``.

    Returns:
        An `avalanche.benchmarks.CLScenario` with ``train_stream``, ``test_stream`` and, if asked for,
        ``validation_stream``, and with the attributes ``name`` and ``form`` (str), ``classes`` (int),
        ``class_names``, ``class_order`` and ``input_shape`` (tuples).

    Raises:
        KeyError: there is no scenario of that name.
        TypeError: the scenario does not have an argument, or does not return a benchmark.
        ValueError: an argument that does not fit the scenario.
        FileNotFoundError: the data is absent.

    Example:
        >>> benchmark = scenario("split-digits", experiences=5, class_order=range(10))
        >>> [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
        [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
        >>> benchmark = scenario("split-digits", experiences=5, class_order=range(10), form="domain")
        >>> benchmark.class_names
        ('0/2/4/6/8', '1/3/5/7/9')
    """
    return _built({"name": arguments.pop("name", "")} if spec is None else spec, {}, arguments)


def scenario_for_seed(spec: Specification, seed: int, *, trusted: bool = True) -> Any:
    """The benchmark of a spec for one seed of an experiment; a scenario that has no seed is the same for all.

    Args:
        spec: of the scenario.
        seed: of its class order.
        trusted: whether a class path that is not registered may be imported, for the scenario or for its source.

    Raises:
        KeyError: an unknown scenario.
        ValueError: a class path that must not be imported.
        FileNotFoundError: the data is absent.
    """
    return _built(spec, {"seed": seed}, {}, trusted=trusted)


def _built(spec: Specification, offered: dict[str, Any], arguments: dict[str, Any], *, trusted: bool = True) -> Any:
    parsed = scenario_spec(spec)
    benchmark = build(parsed.to_dict(), SCENARIOS, offered=offered, trusted=trusted, **arguments)
    if not hasattr(benchmark, "train_stream") or not hasattr(benchmark, "test_stream"):
        raise TypeError(f"scenario {spec!r} returned a {type(benchmark).__name__} without train_stream and test_stream")
    if not getattr(benchmark, "name", None):
        benchmark.name = parsed.name or parsed.class_path.rpartition(".")[2]
    return benchmark


def split(
    source: Specification | Source,
    *,
    experiences: int | None = None,
    first: int | None = None,
    sizes: Sequence[int] | None = None,
    form: Form | None = None,
    seed: int = 0,
    class_order: Sequence[int] | None = None,
    validation: float = 0.0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    shifts: int = 0,
    root: str | Path | None = None,
) -> Any:
    """The classes of a source, divided among experiences in a random order that the seed determines.

    In one of three forms:

    - ``"class"``-incremental (the default), with a single head: labels stay the source's own, so that the output of a network
      is indexed by the original class.
    - ``"domain"``-incremental: the label is the position of a sample's class among those of its experience, in the order of
      classes, so that all experiences share the same few labels and the experience of a sample is not needed.
    - ``"task"``-incremental: labels as in ``"class"``, but `lit_meta.fit_stream` masks, in training and testing, all outputs
      but those of the classes of a sample's own experience. The task of every test sample is then known, so the accuracy must
      not be compared with that of the other forms.

    No experience carries a task label other than 0.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: length of the stream, a divisor of the number of classes. Default: one class per experience.
        first: number of classes in the first experience, a large base; the other experiences share the rest equally. The
            field's B50-10 of 100 classes, a base of 50 and ten increments, is ``first=50, experiences=11``.
        sizes: number of classes in each experience, instead of ``experiences`` and ``first``.
        form: ``"class"``, ``"domain"`` or ``"task"``.
        seed: determines the order of the classes and the validation samples.
        class_order: the order of the classes, instead of the seed's.
        validation: the fraction of the training samples of each class that is removed from the training stream
            and becomes ``benchmark.validation_stream`` (as long as the others), so that hyperparameters can
            be chosen without the test samples.
        input_range: the range to which the source's [0, 1] is mapped linearly: ``(-1, 1)`` for images centred on 0.
            Default: samples as the source provides them.
        standardize: subtracts each channel's mean and divides by its standard deviation: ``{"mean": 0.1307, "std": 0.3081}``,
            one number or one for each channel, or ``"train"``, those of the training samples.
        shifts: each training image also moved by this many pixels, down, up, right and left, its border repeated: five
            samples of each; 0 for none.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: an argument that does not fit the source.
        FileNotFoundError: the data is absent.
    """
    if form is not None and form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
    data = loaded(source, root, validation, input_range, standardize)
    name = f"split-{data.name}"
    order = class_order_of(data, class_order, torch.Generator().manual_seed(seed))
    groups = torch.tensor(order).split(_sizes(name, len(order), experiences, first, sizes))
    if form == "domain" and len({len(group) for group in groups}) > 1:
        raise ValueError("with form='domain' all experiences need the same number of classes")
    if form == "domain" and len(groups[0]) == 1:
        raise ValueError(
            f"with form='domain' an experience needs two classes or more; {len(groups)} experiences have one each"
        )
    parts = parts_of(data, validation, seed)
    position = torch.empty(len(order), dtype=torch.long)
    for group in groups:
        position[group] = torch.arange(len(group))
    labels = {id(y): position[y] if form == "domain" else y for _, y, _ in parts.values()}
    streams = {
        stream: [TensorView(x, labels[id(y)], index[torch.isin(y[index], group)]) for group in groups]
        for stream, (x, y, index) in parts.items()
    }
    if require_count("shifts", shifts, least=0):
        streams["train"] = [shifted(view, shifts) for view in streams["train"]]
    class_names = data.classes
    if form == "domain":
        class_names = tuple("/".join(data.classes[c] for c in column) for column in torch.stack(groups).T.tolist())
    return described(streams, name, form or "class", class_names, order, data)


def _sizes(
    name: str, classes: int, experiences: int | None, first: int | None, sizes: Sequence[int] | None
) -> list[int]:
    """The number of classes of each experience."""
    if sizes is not None:
        if experiences is not None or first is not None:
            raise ValueError("sizes are of all experiences: leave out experiences and first")
        counts = [require_count("sizes", size) for size in sizes]
        if sum(counts) != classes:
            raise ValueError(f"{name} has {classes} classes, and sizes {counts} add up to {sum(counts)}")
        return counts
    if first is not None and not 1 <= require_count("first", first) < classes:
        raise ValueError(f"{name} has {classes} classes: first must be from 1 to {classes - 1}, got {first}")
    base = [] if first is None else [first]
    rest = classes - sum(base)
    length = rest if experiences is None else require_count("experiences", experiences) - len(base)
    if length < 1 or rest % length:
        divisors = [n + len(base) for n in range(1, rest + 1) if rest % n == 0]
        of = f"{classes} classes" if not base else f"{rest} classes after the first {first}"
        raise ValueError(
            f"{name} has {of}, which {experiences} experiences cannot share equally; "
            f"choose one of {', '.join(map(str, divisors))}"
        )
    return base + [rest // length] * length


def permuted(
    source: Specification | Source,
    *,
    experiences: int = 10,
    samples: int | None = None,
    test_samples: int | None = None,
    seed: int = 0,
    validation: float = 0.0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
    root: str | Path | None = None,
) -> Any:
    """All classes of a source in every experience, under a pixel permutation of its own (the first: none).

    Domain-incremental. No experience carries a task label other than 0.

    Args:
        source: a source, or its spec; see `load_source`.
        experiences: length of the stream.
        samples: training samples of each experience, drawn anew for each; None for all.
        test_samples: test samples of each experience, the same for each; None for all.
        seed: determines the permutations, the samples that are drawn and the validation samples.
        validation: as of `split`; every experience has the same images.
        input_range: as of `split`.
        standardize: as of `split`.
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: an argument out of range.
        FileNotFoundError: the data is absent.
    """
    length = require_count("experiences", experiences)
    data = loaded(source, root, validation, input_range, standardize)
    generator = torch.Generator().manual_seed(seed)
    permutations = _permutations(length, data, generator)
    parts = parts_of(data, validation, seed)
    # Drawn from what is left of the generator: the permutations are the same with and without.
    chosen = {stream: [index] * length for stream, (_, _, index) in parts.items()}
    if samples is not None:
        chosen["train"] = [_some("samples", parts["train"][2], samples, generator) for _ in range(length)]
    if test_samples is not None:
        chosen["test"] = [_some("test_samples", parts["test"][2], test_samples, generator)] * length
    streams = {
        stream: [
            TensorView(x, y, index, permutation[None], torch.zeros_like(index))
            for index, permutation in zip(chosen[stream], permutations, strict=True)
        ]
        for stream, (x, y, _) in parts.items()
    }
    order = tuple(range(len(data.classes)))
    return described(streams, f"permuted-{data.name}", "domain", data.classes, order, data)


def _permutations(length: int, source: Source, generator: torch.Generator) -> list[Tensor]:
    pixels = int(torch.Size(source.input_shape).numel())
    return [torch.arange(pixels) if i == 0 else torch.randperm(pixels, generator=generator) for i in range(length)]


def _some(name: str, index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(index):
        raise ValueError(f"expected {name} to be a whole number from 1 to {len(index)}, got {count!r}")
    return index[torch.randperm(len(index), generator=generator)[:count]]

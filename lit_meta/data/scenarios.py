"""Continual-learning scenarios over the data sources, as Avalanche benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_meta.data._scaling import Standardize, rescaled, standardized
from lit_meta.data.registry import SCENARIOS, scenario_spec
from lit_meta.data.sources import load_source
from lit_meta.data.sources.base import Source, stratified_split
from lit_meta.data.tensors import benchmark_of, describe
from lit_meta.data.view import TensorView
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
    form: Form | None = None,
    seed: int = 0,
    class_order: Sequence[int] | None = None,
    validation: float = 0.0,
    input_range: Sequence[float] | None = None,
    standardize: Standardize | None = None,
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
        root: the folder that holds the data sets, see `load_source`.

    Returns:
        The benchmark; see `scenario`.

    Raises:
        ValueError: an argument that does not fit the source.
        FileNotFoundError: the data is absent.
    """
    if form is not None and form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
    data = _loaded(source, root, validation, input_range, standardize)
    name = f"split-{data.name}"
    length = len(data.classes) if experiences is None else _length(experiences)
    order = _class_order(data, class_order, torch.Generator().manual_seed(seed))
    if len(order) % length:
        divisors = [n for n in range(1, len(order) + 1) if len(order) % n == 0]
        raise ValueError(
            f"{name} has {len(order)} classes, which {length} experiences cannot share equally; "
            f"choose one of {', '.join(map(str, divisors))}"
        )
    groups = torch.tensor(order).reshape(length, -1)
    if form == "domain" and groups.shape[1] == 1:
        raise ValueError(
            f"with form='domain' an experience needs two classes or more; {length} experiences have one each"
        )
    parts = _parts(data, validation, seed)
    position = torch.empty(len(order), dtype=torch.long)
    position[groups] = torch.arange(groups.shape[1]).expand_as(groups)
    labels = {id(y): position[y] if form == "domain" else y for _, y, _ in parts.values()}
    streams = {
        stream: [TensorView(x, labels[id(y)], index[torch.isin(y[index], group)]) for group in groups]
        for stream, (x, y, index) in parts.items()
    }
    class_names = data.classes
    if form == "domain":
        class_names = tuple("/".join(data.classes[c] for c in column) for column in groups.T.tolist())
    return _described(streams, name, form or "class", class_names, order, data)


def permuted(
    source: Specification | Source,
    *,
    experiences: int = 10,
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
        seed: determines the permutations and the validation samples.
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
    length = _length(experiences)
    data = _loaded(source, root, validation, input_range, standardize)
    permutations = _permutations(length, data, torch.Generator().manual_seed(seed))
    streams = {
        stream: [TensorView(x, y, index, permutation[None], torch.zeros_like(index)) for permutation in permutations]
        for stream, (x, y, index) in _parts(data, validation, seed).items()
    }
    order = tuple(range(len(data.classes)))
    return _described(streams, f"permuted-{data.name}", "domain", data.classes, order, data)


def _length(experiences: object) -> int:
    if isinstance(experiences, bool) or not isinstance(experiences, int) or experiences < 1:
        raise ValueError(f"expected experiences to be a positive integer, got {experiences!r}")
    return experiences


def _loaded(
    source: Specification | Source,
    root: str | Path | None,
    validation: float,
    input_range: Sequence[float] | None,
    standardize: Standardize | None,
) -> Source:
    if not 0 <= validation < 1:
        raise ValueError(f"expected a validation fraction of at least 0 and below 1, got {validation}")
    if input_range is not None and standardize is not None:
        raise ValueError("input_range and standardize both set the scale of the samples: pass only one of them")
    data = load_source(source, root)
    if standardize is not None:
        return standardized(data, standardize)
    return data if input_range is None else rescaled(data, input_range)


def _parts(data: Source, validation: float, seed: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """For each stream: the source's samples, their labels, and the indices of those in the stream."""
    train = torch.arange(len(data.train_y))
    parts = {"train": (data.train_x, data.train_y, train)}
    if validation:
        # A separate generator: the order of classes must be the same with and without validation.
        train, held_out = stratified_split(data.train_y, validation, torch.Generator().manual_seed(seed))
        parts["train"] = (data.train_x, data.train_y, train)
        parts["validation"] = (data.train_x, data.train_y, held_out)
    parts["test"] = (data.test_x, data.test_y, torch.arange(len(data.test_y)))
    return parts


def _described(
    streams: dict[str, list[Any]],
    name: str,
    form: str,
    class_names: tuple[str, ...],
    order: tuple[int, ...],
    data: Source,
) -> Any:
    return describe(
        benchmark_of(streams),
        name=name,
        form=form,
        class_names=class_names,
        class_order=order,
        input_shape=data.input_shape,
    )


def _class_order(source: Source, class_order: Sequence[int] | None, generator: torch.Generator) -> tuple[int, ...]:
    number = len(source.classes)
    if class_order is None:
        return tuple(torch.randperm(number, generator=generator).tolist())
    order = tuple(int(label) for label in class_order)
    if sorted(order) != list(range(number)):
        raise ValueError(f"expected class_order to hold each of 0..{number - 1} once, got {order}")
    return order


def _permutations(length: int, source: Source, generator: torch.Generator) -> list[Tensor]:
    pixels = int(torch.Size(source.input_shape).numel())
    return [torch.arange(pixels) if i == 0 else torch.randperm(pixels, generator=generator) for i in range(length)]

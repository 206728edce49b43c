"""What a card says of the data that an entry learned from: their form, where they come from, their licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_meta.data.registry import scenario_spec
from lit_meta.data.sources.registry import SOURCES
from lit_meta.utils.specs import Spec, Specification
from lit_meta.zoo.preprocessing import Transform

if TYPE_CHECKING:
    from lit_meta.data.sources.base import Source


@dataclass(frozen=True)
class DataFacts:
    """Of a registered source.

    Attributes:
        licence: of the data, as their authors state it; empty if they state none.
        origin: where they come from.
        kind: ``"image"`` for pictures, ``"tensor"`` for everything else.
        background: as of `Transform`.
        box: as of `Transform`.
    """

    licence: str = ""
    origin: str = ""
    kind: str = "tensor"
    background: float | None = None
    box: int | None = None


_OMNIGLOT = DataFacts("MIT", "https://github.com/brendenlake/omniglot", "image", background=0)
_FACTS = {
    "cifar10": DataFacts("", "https://www.cs.toronto.edu/~kriz/cifar.html", "image"),
    "cifar100": DataFacts("", "https://www.cs.toronto.edu/~kriz/cifar.html", "image"),
    "digits": DataFacts("CC BY 4.0", "https://archive.ics.uci.edu/dataset/80", "image", background=0),
    "dvs-gesture": DataFacts("CC BY 4.0", "https://research.ibm.com/interactive/dvsgesture/"),
    "fsdd": DataFacts("CC BY-SA 4.0", "https://github.com/Jakobovski/free-spoken-digit-dataset"),
    "mnist": DataFacts("CC BY-SA 3.0", "https://github.com/cvdfoundation/mnist", "image", background=0, box=20),
    "omniglot-greek": _OMNIGLOT,
    "omniglot-latin": _OMNIGLOT,
    "strokes-latin": DataFacts("MIT", "https://github.com/brendenlake/omniglot"),
}


def source_of(scenario: Specification) -> str:
    """The name of the source that a scenario is over; empty if it has none.

    Example:
        >>> source_of({"name": "permuted-mnist", "experiences": 3}), source_of("split-digits")
        ('mnist', 'digits')
    """
    source = scenario_spec(scenario).arguments.get("source")
    return Spec.parse(source, SOURCES.kind).name if isinstance(source, (str, Mapping)) else ""


def provenance(scenario: Specification, weights: str) -> dict[str, dict[str, str]]:
    """What the card says of data and weights.

    Example:
        >>> provenance("split-mnist", "Apache-2.0")["data"]["licence"]
        'CC BY-SA 3.0'
    """
    name = source_of(scenario)
    facts = _FACTS.get(name, DataFacts())
    data = {"name": name, "licence": facts.licence, "origin": facts.origin}
    return {"data": data, "weights": {"licence": weights, "origin": "trained from random weights on these data"}}


def transform_of(scenario: Specification, source: Source) -> Transform:
    """The preprocessing of a scenario's samples: what it does to the values of its source, which are in [0, 1].

    Args:
        scenario: its spec.
        source: that it is over.
    """
    facts = _FACTS.get(source.name, DataFacts())
    arguments: Mapping[str, Any] = scenario_spec(scenario).arguments
    mean, std = (0.0,), (1.0,)
    if (bounds := arguments.get("input_range")) is not None:
        low, high = map(float, bounds)
        mean, std = (-low / (high - low),), (1 / (high - low),)
    elif arguments.get("standardize") == "train":
        rows = (
            source.train_x.transpose(0, 1).flatten(1) if len(source.input_shape) > 1 else source.train_x.reshape(1, -1)
        )
        mean = tuple(rows.double().mean(1).tolist())
        std = tuple(rows.double().std(1, correction=0).tolist())
    elif isinstance(given := arguments.get("standardize"), Mapping):
        mean, std = (tuple(v) if isinstance(v, (list, tuple)) else (float(v),) for v in (given["mean"], given["std"]))
    fits = len(source.input_shape) == 3 and source.input_shape[0] in (1, 3)
    kind = facts.kind if fits else "tensor"
    return Transform(source.input_shape, kind, mean, std, facts.background, facts.box)

"""What a card says of the data that an entry learned from: their form, where they come from, their licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_meta.data.registry import scenario_spec
from lit_meta.data.sources.catalog import NOT_STATED, facts_of
from lit_meta.data.sources.registry import SOURCES
from lit_meta.utils.specs import Spec, Specification
from lit_meta.zoo.preprocessing import Transform

if TYPE_CHECKING:
    from lit_meta.data.sources.base import Source


@dataclass(frozen=True)
class Picture:
    """How the pictures of a source look; sources that are not named here have none, or were not looked at.

    Attributes:
        background: as of `Transform`.
        box: as of `Transform`.
    """

    background: float | None = None
    box: int | None = None


_PICTURES = {
    "cifar10": Picture(),
    "cifar100": Picture(),
    "digits": Picture(background=0),
    "mnist": Picture(background=0, box=20),
    "omniglot-greek": Picture(background=0),
    "omniglot-latin": Picture(background=0),
}
_SOUNDS = ("fsdd",)  # Recordings at 8 kHz, as `lit_meta.zoo.preprocessing.spectrogram` reads them.


def source_spec(scenario: Specification) -> Spec | None:
    """The source that a scenario is over, with its arguments; None if it has none.

    Features are of the images that they were made of.
    """
    source = scenario_spec(scenario).arguments.get("source")
    if not isinstance(source, (str, Mapping)):
        return None
    parsed = Spec.parse(source, SOURCES.kind)
    images = parsed.arguments.get("of") if parsed.name == "features" else None
    return parsed if images is None else Spec.parse(images, SOURCES.kind)


def source_of(scenario: Specification) -> str:
    """The name of `source_spec`; empty if there is none.

    Example:
        >>> source_of({"name": "permuted-mnist", "experiences": 3}), source_of("split-digits")
        ('mnist', 'digits')
        >>> features = {"name": "features", "of": "cifar10", "backbone": {"source": "timm:resnet18"}}
        >>> source_of({"name": "split", "source": features})
        'cifar10'
    """
    source = source_spec(scenario)
    return "" if source is None else source.name


def provenance(scenario: Specification, weights: str, network: object = None) -> dict[str, dict[str, str]]:
    """What the card says of data and weights.

    Args:
        scenario: its spec.
        weights: the licence of what was trained.
        network: that was trained; of one with a pretrained backbone the card says where that comes from.

    Example:
        >>> provenance("split-mnist", "Apache-2.0")["data"]["licence"]
        'CC BY-SA 3.0'
    """
    name = source_of(scenario)
    data = {"name": name, "licence": "", "origin": ""}
    if name in SOURCES and (facts := facts_of(SOURCES, name)) is not None:
        data |= {"licence": "" if facts.licence == NOT_STATED else facts.licence, "origin": facts.homepage}
    origin = "trained from random weights on these data"
    of: Any = getattr(network, "weights", None)
    if getattr(of, "source", None):
        parts = ", ".join(part for part in (of.architecture, of.revision, of.sha256 and f"sha256 {of.sha256}") if part)
        origin = f"the head: trained on these data; below it {of.source} ({parts}), which is referred to and not stored"
    return {"data": data, "weights": {"licence": weights, "origin": origin}}


def transform_of(scenario: Specification, source: Source) -> Transform:
    """The preprocessing of a scenario's samples: what it does to the values of its source, which are in [0, 1].

    Args:
        scenario: its spec.
        source: that it is over.
    """
    # Not by the name of what was loaded, which is that of somebody's folder.
    spec = source_spec(scenario)
    name = "" if spec is None else spec.name
    picture = _PICTURES.get(name)
    if spec is not None and name == "folder" and "size" not in spec.arguments:
        picture = Picture()  # Nothing was done to the images but reading them.
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
    if name in _SOUNDS:
        return Transform(source.input_shape, "sound", mean, std)
    fits = len(source.input_shape) == 3 and source.input_shape[0] in (1, 3)
    if picture is None or not fits:
        return Transform(source.input_shape, "tensor", mean, std)
    return Transform(source.input_shape, "image", mean, std, picture.background, picture.box)

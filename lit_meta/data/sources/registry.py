"""The registry of data sources, one line each; other packages add theirs through the entry-point group ``lit_meta.sources``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.data.sources.catalog import CATALOG
from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Spec, Specification, build

if TYPE_CHECKING:
    from torch import Tensor

    from lit_meta.data.sources.base import Source

_ENTRIES = {
    "cifar10": "lit_meta.data.sources.cifar10:load_cifar10",
    "cifar100": "lit_meta.data.sources.cifar100:load_cifar100",
    "clear10": "lit_meta.data.sources.photographs:load_clear10",
    "core50": "lit_meta.data.sources.photographs:load_core50",
    "csv": "lit_meta.data.sources.own.table:load_csv",
    "cub200": "lit_meta.data.sources.photographs:load_cub200",
    "digits": "lit_meta.data.sources.digits:load_digits",
    "dvs-gesture": "lit_meta.data.sources.dvs_gesture:load_dvs_gesture",
    "emnist-letters": "lit_meta.data.sources.mnist:load_emnist_letters",
    "events": "lit_meta.data.sources.own.events:load_events",
    "fashion-mnist": "lit_meta.data.sources.mnist:load_fashion_mnist",
    "features": "lit_meta.data.features.source:load_features",
    "folder": "lit_meta.data.sources.own.folder:load_folder",
    "fsdd": "lit_meta.data.sources.spoken_digits:load_fsdd",
    "hf": "lit_meta.data.sources.own.hub:load_hub",
    "kmnist": "lit_meta.data.sources.mnist:load_kmnist",
    "math-greek": "lit_meta.data.sources.math_greek:load_math_greek",
    "mnist": "lit_meta.data.sources.mnist:load_mnist",
    "n-mnist": "lit_meta.data.sources.events:load_n_mnist",
    "npz": "lit_meta.data.sources.own.arrays:load_npz",
    "omniglot": "lit_meta.data.sources.omniglot:load_omniglot",
    "omniglot-greek": "lit_meta.data.sources.omniglot:load_omniglot_greek",
    "omniglot-latin": "lit_meta.data.sources.omniglot:load_omniglot_latin",
    "shd": "lit_meta.data.sources.events:load_shd",
    "speech-commands": "lit_meta.data.sources.speech_commands:load_speech_commands",
    "ssc": "lit_meta.data.sources.events:load_ssc",
    "strokes-latin": "lit_meta.data.sources.omniglot:load_strokes_latin",
    "svhn": "lit_meta.data.sources.svhn:load_svhn",
    "tidigits": "lit_meta.data.sources.tidigits:load_tidigits",
    "tiny-imagenet": "lit_meta.data.sources.photographs:load_tiny_imagenet",
    "usps": "lit_meta.data.sources.usps:load_usps",
}

SOURCES: Registry[Callable[..., Source]] = Registry(
    "source", _ENTRIES, group="lit_meta.sources", listed_by="lit-meta sources"
)


# Data of the user's own: these need a path, and so make no scenario by their name alone. All others are in the catalogue.
OWN_DATA = tuple(name for name in _ENTRIES if name not in CATALOG)


def source_names() -> tuple[str, ...]:
    """The names of the data sets, in alphabetical order; those that read data of one's own (`OWN_DATA`) need a path besides."""
    return tuple(name for name in SOURCES if name not in OWN_DATA)


def load_source(
    spec: Specification | Source,
    root: str | Path | None = None,
    *,
    transform: Specification | Sequence[Specification] | Callable[[Tensor], Tensor] | None = None,
    **arguments: Any,
) -> Source:
    """Loads a dataset as tensors in [0, 1], with the test split defined by its publication or by this project.

    The two sources used last are cached and shared: treat their tensors as read-only.

    Args:
        spec: one of `source_names`; data of your own, such as ``"folder:photos"`` (see `OWN_DATA` and docs/data.md);
            ``{"name": ..., arguments}`` or ``{"class_path": ..., "init_args": ...}`` of a function that returns a `Source`; a
            source is returned unchanged.
        root: the folder of the datasets, for sources that have an argument of that name; by default `data_root`.
        transform: of every sample, see `lit_meta.data.transforms.transformed`; a mapping may give it too, for any source.
        **arguments: of the source, in place of a mapping, such as ``size=32``.

    Returns:
        The source.

    Raises:
        KeyError: there is no source of that name.
        FileNotFoundError: its files are absent and cannot be downloaded; the message says how to get them.
        ValueError: its files are damaged.
        TypeError: the spec does not build a source.

    Example:
        >>> source = load_source("digits")
        >>> source.input_shape, len(source.train_y) + len(source.test_y)
        ((1, 8, 8), 1797)
        >>> load_source("digits", transform={"name": "resize", "size": 4}).input_shape
        (1, 4, 4)
    """
    from lit_meta.data.sources.base import Source, data_root
    from lit_meta.data.transforms import transformed

    if isinstance(spec, Source):
        if arguments:
            raise TypeError(f"a source that is loaded takes no arguments, got {', '.join(arguments)}")
        return spec if transform is None else transformed(spec, transform)
    parsed = Spec.parse(spec, SOURCES.kind)
    given = {**arguments, **parsed.arguments}
    if transform is None:
        transform = given.pop("transform", None)
    elif "transform" in given:
        raise TypeError("the source has a transform, and another was passed: give one of them")
    described = Spec(name=parsed.name, class_path=parsed.class_path, arguments=given).to_dict()
    folder = data_root() if root is None else Path(root).expanduser()
    source = _load(json.dumps(described, sort_keys=True, default=str), folder.absolute(), _changed(given.get("path")))
    return source if transform is None else transformed(source, transform)


def _changed(path: object) -> int:
    """When a file of the user's was last written: what was read of it before must not be used again."""
    try:
        return Path(str(path)).expanduser().stat().st_mtime_ns if path is not None else 0
    except (OSError, ValueError):
        return 0


# Two: a stream and the one compared with it. CIFAR-10 alone takes 600 MB.
@lru_cache(maxsize=2)
def _load(described: str, root: Path, changed: int) -> Source:
    from lit_meta.data.sources.base import Source

    spec = json.loads(described)
    source = build(spec, SOURCES, offered={"root": root})
    if not isinstance(source, Source):
        raise TypeError(f"source {spec!r} returned a {type(source).__name__}, not a lit_meta.data.Source")
    return source

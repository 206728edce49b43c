"""The registry of data sources, one line each; other packages add theirs through the entry-point group ``lit_meta.sources``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Spec, Specification, build

if TYPE_CHECKING:
    from lit_meta.data.sources.base import Source

SOURCES: Registry[Callable[..., Source]] = Registry(
    "source",
    {
        "cifar10": "lit_meta.data.sources.cifar10:load_cifar10",
        "digits": "lit_meta.data.sources.digits:load_digits",
        "dvs-gesture": "lit_meta.data.sources.dvs_gesture:load_dvs_gesture",
        "fsdd": "lit_meta.data.sources.spoken_digits:load_fsdd",
        "mnist": "lit_meta.data.sources.mnist:load_mnist",
        "omniglot-greek": "lit_meta.data.sources.omniglot:load_omniglot_greek",
        "omniglot-latin": "lit_meta.data.sources.omniglot:load_omniglot_latin",
        "strokes-latin": "lit_meta.data.sources.omniglot:load_strokes_latin",
        "tidigits": "lit_meta.data.sources.tidigits:load_tidigits",
    },
    group="lit_meta.sources",
)


def source_names() -> tuple[str, ...]:
    """The names of the sources, in alphabetical order."""
    return tuple(SOURCES)


def load_source(spec: Specification | Source, root: str | Path | None = None) -> Source:
    """Loads a dataset as tensors in [0, 1], with the test split defined by its publication or by this project.

    The two sources used last are cached and shared: treat their tensors as read-only.

    Args:
        spec: one of `source_names`, ``{"name": ..., arguments}`` or ``{"class_path": ..., "init_args": ...}`` of a function
            that returns a `Source`; a source is returned unchanged.
        root: the folder of the datasets, for sources that have an argument of that name; by default `data_root`.

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
    """
    from lit_meta.data.sources.base import Source, data_root

    if isinstance(spec, Source):
        return spec
    described = Spec.parse(spec, SOURCES.kind).to_dict()
    folder = data_root() if root is None else Path(root).expanduser()
    return _load(json.dumps(described, sort_keys=True, default=str), folder.absolute())


# Two: a stream and the one compared with it. CIFAR-10 alone takes 600 MB.
@lru_cache(maxsize=2)
def _load(described: str, root: Path) -> Source:
    from lit_meta.data.sources.base import Source

    spec = json.loads(described)
    source = build(spec, SOURCES, offered={"root": root})
    if not isinstance(source, Source):
        raise TypeError(f"source {spec!r} returned a {type(source).__name__}, not a lit_meta.data.Source")
    return source

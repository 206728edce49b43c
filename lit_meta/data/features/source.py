"""Features as a data source: ``{name: features, of: cifar10, backbone: {...}}``, or those of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_meta.data.features.store import FeatureStore
from lit_meta.data.sources.base import Source
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import Specification, from_a_file

SHIPPED = Path(__file__).parent / "shipped"


def shipped_names() -> tuple[str, ...]:
    """The names of the feature sets that come with the package."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob("*/features.json")))


def load_features(
    root: Path,
    *,
    path: str | None = None,
    of: Specification | None = None,
    backbone: Mapping[str, Any] | None = None,
    parts: Sequence[str] | None = None,
    folder: str | None = None,
) -> Source:
    """Features of a frozen backbone, computed once.

    Args:
        root: the folder of the data sets.
        path: a set that comes with the package (``"cifar10-lite0"``), or a folder of features.
        of: the source of images, for features that are computed unless they are there; in place of ``path``.
        backbone: the arguments of `lit_meta.networks.Backbone`, without ``classes``.
        parts: of the features, such as ``["last"]``; None for all.
        folder: as of `extract_features`.

    Returns:
        A source of samples (width,).

    Raises:
        KeyError: an unknown set, source or part.
        ValueError: both or none of ``path`` and ``of``; or a folder of this machine in what came from a stranger.
        FileNotFoundError: data or weights are absent.
    """
    if (path is None) == (of is None) or (of is None) != (backbone is None):
        raise ValueError("features are either path=NAME, or of=SOURCE with backbone={source: ..., ...}")
    if path is not None:
        if folder is not None:
            raise ValueError("folder= has no effect on features that are stored")
        if path in shipped_names():
            return FeatureStore(SHIPPED / path).source(parts)
        if from_a_file():
            raise ValueError(f"a file of results may not name a folder of this machine, got features in {path!r}")
        if not Path(path).expanduser().is_dir():
            raise unknown("set of features", path, shipped_names())
        return FeatureStore(Path(path).expanduser()).source(parts)
    from lit_meta.data.features.extract import extract_features
    from lit_meta.data.sources.registry import load_source
    from lit_meta.networks.backbones import Backbone

    if of is None or backbone is None:  # For mypy; checked above.
        raise ValueError("features need a source and a backbone")
    if from_a_file() and folder is not None:
        raise ValueError(f"a file of results may not name a folder of this machine, got folder={folder!r}")
    images = load_source(of, root)
    network = Backbone(**{**backbone, "classes": len(images.classes)})
    return extract_features(network, images, folder).source(parts)

"""The folders of configs and zoo entries (at the top of a checkout, or inside the installed package), of data and caches."""

from __future__ import annotations

import os
from pathlib import Path

from lit_meta.utils.registry import unknown
from lit_meta.utils.renamed import present_name

_PACKAGE = Path(__file__).resolve().parent.parent


def _folder(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


def configs_folder() -> Path:
    """The folder of configs (``rule/`` and ``experiment/``)."""
    return _folder("configs", "configs")


def config_file(kind: str, path_or_name: str) -> Path:
    """A config by its path, or by its name in ``configs/kind/``.

    Raises:
        FileNotFoundError: no such file.
        KeyError: no config of that name; the nearest are named.
    """
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        folder = configs_folder() / kind
        path = folder / f"{path_or_name}.yaml"
        if not path.is_file():
            path = folder / f"{present_name(path_or_name)}.yaml"
        if not path.is_file():
            raise unknown(kind, path_or_name, [p.stem for p in folder.glob("*.yaml")])
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    return path


def zoo_folder() -> Path:
    """The folder of the zoo entries included in the package, one folder each."""
    return _folder("zoo_entries", "zoo")


def own_zoo_folder() -> Path:
    """The folder of entries that a user adds: the zoo of a checkout, or else a folder in the user's home.

    The latter is ``$XDG_DATA_HOME/lit_meta/zoo``, or ``~/.local/share/lit_meta/zoo``; an installed package is never modified.
    """
    if not (_PACKAGE / "zoo_entries").is_dir() and (_PACKAGE.parent / "zoo").is_dir():
        return _PACKAGE.parent / "zoo"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "lit_meta" / "zoo"


def cache_folder() -> Path:
    """The per-user cache folder of this system; on Linux ``$XDG_CACHE_HOME/lit_meta``, or ``~/.cache/lit_meta``."""
    import platformdirs

    return platformdirs.user_cache_path("lit_meta", appauthor=False)


def data_root() -> Path:
    """The folder of the data sets: ``$LIT_META_DATA``, or else ``data`` in the per-user cache folder."""
    root = os.environ.get("LIT_META_DATA")
    return Path(root).expanduser() if root else cache_folder() / "data"

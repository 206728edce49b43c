"""Where configs and zoo entries lie: at the top of a checkout, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


def configs_folder() -> Path:
    """The folder of configs (``rule/`` and ``experiment/``)."""
    return _folder("configs", "configs")


def zoo_folder() -> Path:
    """The folder of zoo entries, one folder each."""
    return _folder("zoo_entries", "zoo")

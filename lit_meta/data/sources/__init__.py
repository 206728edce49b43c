"""Data sources by name, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.data.sources.registry import SOURCES as SOURCES
from lit_meta.data.sources.registry import load_source as load_source
from lit_meta.data.sources.registry import source_names as source_names
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from lit_meta.data.sources.base import Source as Source
    from lit_meta.data.sources.base import cache_folder as cache_folder
    from lit_meta.data.sources.base import data_root as data_root

__getattr__, __dir__, _names = lazy_exports(
    __name__, [f"lit_meta.data.sources.base:{name}" for name in ("Source", "cache_folder", "data_root")]
)
__all__ = [*_names, "SOURCES", "load_source", "source_names"]

"""Data sources, continual-learning scenarios over them, and their way into Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.data.registry import SCENARIOS as SCENARIOS
from lit_meta.data.registry import scenario_names as scenario_names
from lit_meta.data.sources.registry import SOURCES as SOURCES
from lit_meta.data.sources.registry import load_source as load_source
from lit_meta.data.sources.registry import source_names as source_names
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from lit_meta.data.exchange import from_data_modules as from_data_modules
    from lit_meta.data.exchange import to_data_modules as to_data_modules
    from lit_meta.data.lazy import LazyBenchmark as LazyBenchmark
    from lit_meta.data.lazy import to_avalanche as to_avalanche
    from lit_meta.data.module import ExperienceDataModule as ExperienceDataModule
    from lit_meta.data.module import experience_tensors as experience_tensors
    from lit_meta.data.scenarios import scenario as scenario
    from lit_meta.data.sources.base import Source as Source
    from lit_meta.data.sources.base import data_root as data_root
    from lit_meta.data.sources.own.arrays import from_tensors as from_tensors
    from lit_meta.data.sources.own.hub import from_dataset as from_dataset
    from lit_meta.data.sources.own.table import from_frame as from_frame
    from lit_meta.data.tensors import joint as joint
    from lit_meta.data.tensors import tensor_benchmark as tensor_benchmark

_PARTS = (
    "exchange:from_data_modules",
    "exchange:to_data_modules",
    "lazy:LazyBenchmark",
    "lazy:to_avalanche",
    "module:ExperienceDataModule",
    "module:experience_tensors",
    "tensors:joint",
    "tensors:tensor_benchmark",
    "scenarios:scenario",
    "sources.base:Source",
    "sources.base:data_root",
    "sources.own.arrays:from_tensors",
    "sources.own.hub:from_dataset",
    "sources.own.table:from_frame",
)
__getattr__, __dir__, _names = lazy_exports(__name__, [f"lit_meta.data.{part}" for part in _PARTS])
__all__ = [*_names, "SCENARIOS", "SOURCES", "load_source", "scenario_names", "source_names"]

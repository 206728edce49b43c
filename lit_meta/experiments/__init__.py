"""Experiments and sweeps as YAML files describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.experiments.config import Experiment as Experiment
from lit_meta.experiments.config import Override as Override
from lit_meta.experiments.loading import load_experiment as load_experiment
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from lit_meta.experiments.run import build_module as build_module
    from lit_meta.experiments.run import run_experiment as run_experiment
    from lit_meta.experiments.run import run_seed as run_seed

__getattr__, __dir__, _names = lazy_exports(
    __name__, [f"lit_meta.experiments.run:{name}" for name in ("build_module", "run_experiment", "run_seed")]
)
__all__ = [*_names, "Experiment", "Override", "load_experiment"]

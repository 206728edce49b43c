"""Experiments and sweeps as YAML files describe them."""

from lit_meta.experiments.config import Experiment, Override, load_experiment
from lit_meta.experiments.run import build_module, run_experiment, run_seed

__all__ = ["Experiment", "Override", "build_module", "load_experiment", "run_experiment", "run_seed"]

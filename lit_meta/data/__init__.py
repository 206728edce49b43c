"""Data sources, continual-learning scenarios over them, and their way into Lightning."""

from lit_meta.data.module import ExperienceDataModule, experience_tensors
from lit_meta.data.scenarios import joint, scenario, scenario_names
from lit_meta.data.sources import Source, data_root, load_source, source_names

__all__ = [
    "ExperienceDataModule",
    "Source",
    "data_root",
    "experience_tensors",
    "joint",
    "load_source",
    "scenario",
    "scenario_names",
    "source_names",
]

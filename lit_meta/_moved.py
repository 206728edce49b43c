"""Modules that moved: importing one by the name of an earlier release gives the module of today, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "lit_meta.batches": "lit_meta.core.batches",
    "lit_meta.callbacks.ledger": "lit_meta.cost.ledger",
    "lit_meta.checkpoints": "lit_meta.streams.checkpoints",
    "lit_meta.checks": "lit_meta.core.checks",
    "lit_meta.experiment": "lit_meta.experiments.run",
    "lit_meta.experiment_config": "lit_meta.experiments.config",
    "lit_meta.fresh": "lit_meta.streams.from_scratch",
    "lit_meta.hosts": "lit_meta.integrations",
    "lit_meta.hosts.callback": "lit_meta.integrations.callback",
    "lit_meta.hosts.losses": "lit_meta.integrations.losses",
    "lit_meta.hosts.module": "lit_meta.integrations.module",
    "lit_meta.hosts.plugin": "lit_meta.integrations.avalanche",
    "lit_meta.layers": "lit_meta.core.layers",
    "lit_meta.rules.base": "lit_meta.core.rule",
    "lit_meta.rules.state": "lit_meta.core.state",
    "lit_meta.saving": "lit_meta.utils.io",
    "lit_meta.session": "lit_meta.core.session",
    "lit_meta.stream": "lit_meta.streams.fit",
    "lit_meta.sweep": "lit_meta.experiments.sweep",
    "lit_meta.task_outputs": "lit_meta.streams.task_masking",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds modules by their former names.

    Asked first: below a former package the files of today would be found, and loaded a second time.
    """

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        today = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {today}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(today)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the old name's spec into a module that has one of its own.
        if module.__spec__ is not None:
            module.__spec__ = self._specs.pop(module.__spec__.name, module.__spec__)


def install() -> None:
    """Makes the former names known, once in a process."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())

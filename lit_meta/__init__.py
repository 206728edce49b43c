"""Metaplasticity for PyTorch Lightning: the plasticity of a synapse depends on its history and on neuromodulators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lit_meta._version import __version__

if TYPE_CHECKING:
    from lit_meta import functional, metrics, networks, rules, zoo
    from lit_meta.core.session import Session
    from lit_meta.cost.ledger import CostLedger
    from lit_meta.data import scenario
    from lit_meta.evaluation.accuracy import evaluate
    from lit_meta.evaluation.audit import AuditReport, audit
    from lit_meta.integrations.avalanche import MetaplasticityPlugin
    from lit_meta.integrations.callback import Metaplasticity
    from lit_meta.integrations.module import MetaplasticModule
    from lit_meta.rules import (
        BGD,
        EWC,
        HLOP,
        MAS,
        MESU,
        NACA,
        OWM,
        SI,
        UPGD,
        BennaFusi,
        BinaryMetaplasticity,
        CriticalPeriod,
        RecursiveReadout,
        Rule,
        StreamingLDA,
        XdG,
    )
    from lit_meta.streams.fit import StreamResult, fit_stream

# Lightning and Avalanche take seconds to import: each name is looked up when it is used.
_WHERE = {
    "AuditReport": "lit_meta.evaluation.audit",
    "BGD": "lit_meta.rules",
    "BennaFusi": "lit_meta.rules",
    "BinaryMetaplasticity": "lit_meta.rules",
    "CostLedger": "lit_meta.cost.ledger",
    "CriticalPeriod": "lit_meta.rules",
    "EWC": "lit_meta.rules",
    "HLOP": "lit_meta.rules",
    "MAS": "lit_meta.rules",
    "MESU": "lit_meta.rules",
    "MetaplasticModule": "lit_meta.integrations.module",
    "Metaplasticity": "lit_meta.integrations.callback",
    "MetaplasticityPlugin": "lit_meta.integrations.avalanche",
    "NACA": "lit_meta.rules",
    "OWM": "lit_meta.rules",
    "RecursiveReadout": "lit_meta.rules",
    "Rule": "lit_meta.rules",
    "SI": "lit_meta.rules",
    "Session": "lit_meta.core.session",
    "StreamResult": "lit_meta.streams.fit",
    "StreamingLDA": "lit_meta.rules",
    "UPGD": "lit_meta.rules",
    "XdG": "lit_meta.rules",
    "audit": "lit_meta.evaluation.audit",
    "evaluate": "lit_meta.evaluation.accuracy",
    "fit_stream": "lit_meta.streams.fit",
    "scenario": "lit_meta.data",
}
_MODULES = ("functional", "metrics", "networks", "rules", "zoo")

__all__ = [
    "BGD",
    "EWC",
    "HLOP",
    "MAS",
    "MESU",
    "NACA",
    "OWM",
    "SI",
    "UPGD",
    "AuditReport",
    "BennaFusi",
    "BinaryMetaplasticity",
    "CostLedger",
    "CriticalPeriod",
    "MetaplasticModule",
    "Metaplasticity",
    "MetaplasticityPlugin",
    "RecursiveReadout",
    "Rule",
    "Session",
    "StreamResult",
    "StreamingLDA",
    "XdG",
    "__version__",
    "audit",
    "evaluate",
    "fit_stream",
    "functional",
    "metrics",
    "networks",
    "rules",
    "scenario",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lit_meta.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'lit_meta' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

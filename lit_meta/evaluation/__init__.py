"""Accuracy that cannot leak: a prediction depends on its own sample only, and `audit` checks this for any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.evaluation.protocols import PROTOCOLS as PROTOCOLS
from lit_meta.evaluation.protocols import Protocol as Protocol
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from lit_meta.evaluation.accuracy import accuracy_by_batching as accuracy_by_batching
    from lit_meta.evaluation.accuracy import accuracy_of as accuracy_of
    from lit_meta.evaluation.accuracy import evaluate as evaluate
    from lit_meta.evaluation.accuracy import predict as predict
    from lit_meta.evaluation.class_retention import Retention as Retention
    from lit_meta.evaluation.class_retention import retention as retention

_NAMES = ("accuracy_by_batching", "accuracy_of", "evaluate", "predict")
_TARGETS = [
    *(f"lit_meta.evaluation.accuracy:{name}" for name in _NAMES),
    *(f"lit_meta.evaluation.class_retention:{name}" for name in ("Retention", "retention")),
]
__getattr__, __dir__, _names = lazy_exports(__name__, _TARGETS)
__all__ = [*_names, "PROTOCOLS", "Protocol"]

"""Checks whether a prediction depends on its own sample only and, if not, explains why."""

from lit_meta.evaluation.audit.audit import audit
from lit_meta.evaluation.audit.causes import Cause
from lit_meta.evaluation.audit.report import AuditReport, Condition
from lit_meta.evaluation.audit.samples import stratified_subset

__all__ = ["AuditReport", "Cause", "Condition", "audit", "stratified_subset"]

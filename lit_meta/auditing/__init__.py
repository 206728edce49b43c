"""Does a prediction depend on its own sample only? `audit` finds out, and says why where it does not."""

from lit_meta.auditing.audit import audit, stratified_subset
from lit_meta.auditing.causes import Cause
from lit_meta.auditing.report import AuditReport, Condition

__all__ = ["AuditReport", "Cause", "Condition", "audit", "stratified_subset"]

"""Does a prediction depend on its own sample only? `audit` finds out, and says why where it does not."""

from lit_meta.auditing.audit import audit
from lit_meta.auditing.causes import Cause
from lit_meta.auditing.report import AuditReport, Condition
from lit_meta.auditing.samples import stratified_subset

__all__ = ["AuditReport", "Cause", "Condition", "audit", "stratified_subset"]

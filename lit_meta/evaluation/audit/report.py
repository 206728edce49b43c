"""The result of an audit, as numbers and sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lit_meta.evaluation.audit.causes import Cause


@dataclass(frozen=True)
class Condition:
    """One way to make test batches, compared with shuffled batches of the same samples.

    Attributes:
        name: of the condition.
        batches: how the batches are made.
        samples: number of samples tested.
        accuracy: on them, in [0, 1]; None if the model raised an error.
        reference: accuracy on the same samples in shuffled batches.
        disagreements: number of samples whose predicted class differs from that in shuffled batches.
        ties: number of these that are ties within rounding, and do not count against the model.
        error: message of the error that the model raised, if it did.
        judged: whether a difference here is a failure.
    """

    name: str
    batches: str
    samples: int
    accuracy: float | None
    reference: float
    disagreements: int
    ties: int = 0
    error: str | None = None
    judged: bool = True

    @property
    def difference(self) -> float | None:
        """Accuracy minus that in shuffled batches."""
        return None if self.accuracy is None else self.accuracy - self.reference

    def fails(self, threshold: float) -> bool:
        """Whether accuracy, or the share of changed predictions, differs by more than ``threshold``."""
        if not self.judged:
            return False
        if self.difference is None:
            return True
        changed = (self.disagreements - self.ties) / self.samples
        return abs(self.difference) > threshold + 1e-9 or changed > threshold + 1e-9


@dataclass(frozen=True)
class AuditReport:
    """The result of `audit`.

    Attributes:
        samples: number of test samples.
        threshold: the largest difference that passes.
        accuracy: in shuffled batches, the standard protocol.
        conditions: every way to make batches that was tried.
        causes: what makes the predictions differ, or could; ``passed`` tells whether they do.
    """

    samples: int
    threshold: float
    accuracy: float
    conditions: list[Condition]
    causes: list[Cause] = field(default_factory=list)

    @property
    def failures(self) -> list[Condition]:
        """The conditions that differ by more than the threshold."""
        return [condition for condition in self.conditions if condition.fails(self.threshold)]

    @property
    def passed(self) -> bool:
        """Whether no condition differs."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, lists and strings."""
        conditions = [
            {**asdict(c), "difference": c.difference, "fails": c.fails(self.threshold)} for c in self.conditions
        ]
        return {**asdict(self), "passed": self.passed, "conditions": conditions}

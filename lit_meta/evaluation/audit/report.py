"""What an audit found, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lit_meta.evaluation.audit.causes import Cause


@dataclass(frozen=True)
class Condition:
    """One way to make test batches, against shuffled batches of the same samples.

    Attributes:
        name: of the condition.
        batches: how the batches are made.
        samples: how many samples were tested.
        accuracy: on them, in [0, 1]; None where the model failed.
        reference: accuracy of the very same samples in shuffled batches.
        disagreements: samples whose predicted class is another than in shuffled batches.
        ties: how many of these lie within rounding of a tie, and are not counted against the model.
        error: what the model raised, if it did.
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
        """Accuracy beyond that in shuffled batches."""
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
    """What `audit` found.

    Attributes:
        samples: test samples.
        threshold: the largest difference that is let pass.
        accuracy: in shuffled batches, the standard protocol.
        conditions: every way to make batches that was tried.
        causes: what makes the predictions differ, or could; see ``passed`` for whether they do.
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
        """Plain numbers, lists and strings."""
        conditions = [
            {**asdict(c), "difference": c.difference, "fails": c.fails(self.threshold)} for c in self.conditions
        ]
        return {**asdict(self), "passed": self.passed, "conditions": conditions}

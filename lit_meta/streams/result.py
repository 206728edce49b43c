"""The result of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lit_meta.functional import matrix
from lit_meta.streams.cost import StreamCost


@dataclass
class StreamResult:
    """The result of a stream.

    Attributes:
        scenario: the benchmark's name.
        protocol: how the test batches were composed; see `lit_meta.evaluation.accuracy.accuracy_of`.
        accuracy_matrix: (training experiences, test experiences), R[i, j] = accuracy on j after learning i.
        initial: (test experiences,), accuracy before any learning.
        cost: optimizer steps, samples seen, seconds of training, bytes of parameters and of the rules' memory; with a
            `CostLedger` among the callbacks, also its counts over the whole stream. A mapping of numbers.
        classes: the labels in each test experience; empty if the benchmark does not list them.
    """

    scenario: str
    protocol: str
    accuracy_matrix: Tensor
    initial: Tensor
    cost: StreamCost = field(default_factory=StreamCost)
    classes: list[list[int]] = field(default_factory=list)

    @property
    def average_accuracy(self) -> float:
        """Mean accuracy over the test experiences after the last experience."""
        return float(self.accuracy_matrix[-1].mean())

    @property
    def forgetting(self) -> float | None:
        """Mean loss of accuracy since an experience was learned; None for a stream of one experience."""
        return float(matrix.forgetting(self.accuracy_matrix)) if self._is_stream else None

    @property
    def backward_transfer(self) -> float | None:
        """Minus the forgetting, by Avalanche's definition; None for a stream of one experience."""
        return float(matrix.backward_transfer(self.accuracy_matrix)) if self._is_stream else None

    @property
    def forward_transfer(self) -> float | None:
        """Mean gain of accuracy on experiences still to come; None for a stream of one experience."""
        return float(matrix.forward_transfer(self.accuracy_matrix, self.initial)) if self._is_stream else None

    @property
    def _is_stream(self) -> bool:
        rows, columns = self.accuracy_matrix.shape
        return rows == columns and rows > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        return {
            "scenario": self.scenario,
            "protocol": self.protocol,
            "average_accuracy": self.average_accuracy,
            "forgetting": self.forgetting,
            "backward_transfer": self.backward_transfer,
            "forward_transfer": self.forward_transfer,
            "accuracy_matrix": [[round(v, 6) for v in row] for row in self.accuracy_matrix.tolist()],
            "initial": [round(v, 6) for v in self.initial.tolist()],
            "cost": self.cost.to_dict(),
            "classes": self.classes,
        }

"""The result of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_meta.functional import matrix, stability
from lit_meta.streams.cost import StreamCost
from lit_meta.utils.show import matrix_frame, matrix_html, plot_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(repr=False)
class StreamResult:
    """The result of a stream.

    It prints as one line, and in a notebook as its accuracy matrix; `plot` draws it, and `to_pandas` gives a data frame.

    Attributes:
        scenario: the benchmark's name.
        protocol: how the test batches were composed; see `lit_meta.evaluation.accuracy.accuracy_of`.
        accuracy_matrix: (training experiences, test experiences), R[i, j] = accuracy on j after learning i.
        initial: (test experiences,), accuracy before any learning.
        cost: optimizer steps, samples seen, seconds of training, bytes of parameters and of the rules' memory; with a
            `CostLedger` among the callbacks, also its counts over the whole stream. A mapping of numbers.
        classes: the labels in each test experience; empty if the benchmark does not list them.
        trace: accuracies within experiences, (training experiences, evaluations, test experiences), NaN after an experience's
            last; None unless the stream was fitted with ``evaluate_every``.

    Example:
        >>> import torch
        >>> StreamResult("split-digits", "standard", torch.tensor([[1.0, 0.0], [0.8, 0.9]]), torch.zeros(2))
        StreamResult(split-digits, 2 experiences: average accuracy 85.0 %, forgetting 20.0 points)
    """

    scenario: str
    protocol: str
    accuracy_matrix: Tensor
    initial: Tensor
    cost: StreamCost = field(default_factory=StreamCost)
    classes: list[list[int]] = field(default_factory=list)
    trace: Tensor | None = None

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
    def average_anytime_accuracy(self) -> float | None:
        """AAA, the mean accuracy at all evaluations within experiences; None without ``evaluate_every``.

        See `lit_meta.functional.stability.average_anytime_accuracy`; of all test experiences where training and test
        experiences do not belong together one by one.
        """
        if self.trace is None:
            return None
        return float(stability.average_anytime_accuracy(self.trace, of_all=None))

    @property
    def stability_gap(self) -> float | None:
        """Mean drop below the accuracy before an experience, within it; None without ``evaluate_every``.

        See `lit_meta.functional.stability.stability_gap`.
        """
        if self.trace is None or not self._is_stream:
            return None
        return float(stability.stability_gap(self.trace))

    @property
    def _is_stream(self) -> bool:
        rows, columns = self.accuracy_matrix.shape
        return rows == columns and rows > 1

    def __repr__(self) -> str:
        rows = len(self.accuracy_matrix)
        lost = "" if self.forgetting is None else f", forgetting {100 * self.forgetting:.1f} points"
        protocol = "" if self.protocol == "standard" else f", protocol {self.protocol}"
        return (
            f"{type(self).__name__}({self.scenario}{protocol}, {rows} experience{'s' if rows > 1 else ''}: "
            f"average accuracy {100 * self.average_accuracy:.1f} %{lost})"
        )

    def _repr_html_(self) -> str:
        labels = [f"classes {', '.join(map(str, of_one))}" for of_one in self.classes]
        return matrix_html(self.accuracy_matrix, repr(self), labels)

    def plot(self, val: Tensor | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draws the accuracy matrix; called as a torchmetric's `plot`.

        Args:
            val: another accuracy matrix to draw.
            ax: to draw into; None: a new figure.

        Returns:
            Figure and axes.
        """
        return plot_matrix(self.accuracy_matrix if val is None else val, title=f"accuracy (%), {self.scenario}", ax=ax)

    def to_pandas(self) -> DataFrame:
        """Accuracies as a data frame: row 0 before any learning, row i after experience i; a column for each test experience.

        Raises:
            ValueError: pandas is not installed.
        """
        return matrix_frame(self.accuracy_matrix, self.initial)  # type: ignore[no-any-return]

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
            **({} if self.trace is None else {"average_anytime_accuracy": self.average_anytime_accuracy}),
        }

"""The accuracy matrix of a stream and the measures derived from it, as torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_meta.functional import matrix as functional
from lit_meta.metrics._counts import CorrectCounts
from lit_meta.utils.arguments import require_count
from lit_meta.utils.show import matrix_frame, matrix_html, plot_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


class AccuracyMatrix(CorrectCounts):
    """Counts correct predictions for every pair of training and test experience.

    The result is the same however samples are split into batches or across processes.

    Args:
        experiences: number of training experiences.
        test_experiences: number of test experiences; by default the number of training experiences.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> import torch
        >>> metric = AccuracyMatrix(2)
        >>> metric.update(0, 0, torch.tensor([1, 1, 0, 0]), torch.tensor([1, 1, 0, 1]))
        >>> metric.update(1, 0, torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([1, 1]))  # logits
        >>> metric.compute()
        tensor([[0.7500,    nan],
                [0.5000,    nan]])
    """

    def __init__(self, experiences: int, test_experiences: int | None = None, **kwargs: Any) -> None:
        columns = experiences if test_experiences is None else test_experiences
        for number in (experiences, columns):
            require_count("experiences", number)
        # Row 0 is the state before any training, row i + 1 the one after training experience i.
        super().__init__((experiences + 1, columns), **kwargs)
        self.experiences, self.test_experiences = experiences, columns

    def __repr__(self) -> str:
        return f"{type(self).__name__}(experiences={self.experiences}, test_experiences={self.test_experiences})"

    def _repr_html_(self) -> str:
        return matrix_html(self._accuracies()[1:], repr(self))

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draws the accuracy matrix; the measures of it draw their number, or several as a line, as torchmetrics does.

        Args:
            val: a value, or values, of `compute`; None calls it.
            ax: to draw into; None: a new figure.

        Returns:
            Figure and axes.
        """
        if type(self).compute is not AccuracyMatrix.compute:
            return self._plot(val, ax)  # type: ignore[no-any-return]
        return plot_matrix(self.compute() if val is None else val, title="accuracy (%)", ax=ax)

    def to_pandas(self) -> DataFrame:
        """The accuracy matrix as a data frame: row 0 before any training, row i after training experience i.

        Raises:
            ValueError: pandas is not installed.
        """
        accuracies = self._accuracies()
        return matrix_frame(accuracies[1:], accuracies[0])  # type: ignore[no-any-return]

    def update(self, train_experience: int | None, test_experience: int, prediction: Tensor, target: Tensor) -> None:
        """Counts one batch.

        Args:
            train_experience: the training experience learned last, counted from 0; ``None`` before any.
            test_experience: the test experience that the batch is from, counted from 0.
            prediction: predicted labels ``(batch,)``, or scores ``(batch, classes)``, of which the highest counts.
            target: true labels, ``(batch,)``.

        Raises:
            ValueError: if an experience is out of range or the shapes do not match.
        """
        if train_experience is not None and not 0 <= train_experience < self.experiences:
            raise ValueError(
                f"expected train_experience to be None or 0..{self.experiences - 1}, got {train_experience}"
            )
        if not 0 <= test_experience < self.test_experiences:
            raise ValueError(f"expected test_experience to be 0..{self.test_experiences - 1}, got {test_experience}")
        row = 0 if train_experience is None else train_experience + 1
        self._count((row, test_experience), prediction, target)

    def compute(self) -> Tensor:
        """The accuracy matrix R, ``(experiences, test experiences)``, NaN where nothing was counted."""
        return self._accuracies()[1:]

    def initial(self) -> Tensor:
        """The accuracies before any training, ``(test experiences,)``, NaN where nothing was counted."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self._accuracies()[0]


class AverageAccuracy(AccuracyMatrix):
    """Mean accuracy over the test experiences at the end, see `lit_meta.functional.matrix.average_accuracy`.

    Args:
        experiences: number of training experiences.
        test_experiences: number of test experiences; by default the number of training experiences.
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = AverageAccuracy(1, test_experiences=2)
        >>> metric.update(0, 0, torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> metric.update(0, 1, torch.tensor([3]), torch.tensor([3]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.average_accuracy(super().compute())


class AnytimeAccuracy(AccuracyMatrix):
    """Accuracy on the experiences seen so far, averaged over the stream.

    See `lit_meta.functional.matrix.anytime_accuracy`.
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.anytime_accuracy(super().compute())


class MinimumAccuracy(AccuracyMatrix):
    """Worst accuracy since learning, averaged, see `lit_meta.functional.matrix.minimum_accuracy`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.minimum_accuracy(super().compute())


class Forgetting(AccuracyMatrix):
    """Accuracy lost since each experience was learned, see `lit_meta.functional.matrix.forgetting`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.forgetting(super().compute())


class BackwardTransfer(AccuracyMatrix):
    """Effect of later experiences on earlier ones, see `lit_meta.functional.matrix.backward_transfer`."""

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        return functional.backward_transfer(super().compute())


class ForwardTransfer(AccuracyMatrix):
    """Effect of earlier experiences on the next one, see `lit_meta.functional.matrix.forward_transfer`.

    Needs the accuracies before any training: `update` with ``train_experience=None``.
    """

    def compute(self) -> Tensor:
        """The measure, a scalar."""
        accuracies = self._accuracies()
        return functional.forward_transfer(accuracies[1:], accuracies[0])

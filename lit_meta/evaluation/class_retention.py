"""What a network lost between two points of its life, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_meta.data.benchmark import Benchmark
from lit_meta.data.module import experience_tensors
from lit_meta.evaluation.accuracy import predict
from lit_meta.utils.optional import needed

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ClassRetention:
    """One class before and after.

    Attributes:
        name: of the class.
        samples: tested.
        before: share of them that was right before, in [0, 1].
        after: share that is right after.
        lost: samples that were right before and are wrong now.
        gained: samples that were wrong before and are right now.
        taken_by: the class that most of the lost samples are now taken for; None if none was lost.
    """

    name: str
    samples: int
    before: float
    after: float
    lost: int
    gained: int
    taken_by: str | None

    @property
    def change(self) -> float:
        """Accuracy after minus accuracy before, in [-1, 1]."""
        return self.after - self.before


@dataclass(frozen=True, repr=False)
class Retention:
    """The classes of a test set before and after, the greatest loss first.

    It prints as a table, also in a notebook; `to_pandas` gives a data frame.

    Attributes:
        classes: one row each.
    """

    classes: tuple[ClassRetention, ...]

    @property
    def kept(self) -> float:
        """Share of the samples that were right before and still are, in [0, 1]; NaN if none was right."""
        right = sum(round(c.before * c.samples) for c in self.classes)
        return 1 - sum(c.lost for c in self.classes) / right if right else float("nan")

    @property
    def before(self) -> float:
        """Accuracy over all samples before."""
        return sum(c.before * c.samples for c in self.classes) / sum(c.samples for c in self.classes)

    @property
    def after(self) -> float:
        """Accuracy over all samples after."""
        return sum(c.after * c.samples for c in self.classes) / sum(c.samples for c in self.classes)

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        kept = (
            "nothing was right before"
            if self.kept != self.kept
            else f"of what was right before, {100 * self.kept:.1f} % still is"
        )
        return f"accuracy {100 * self.before:.1f} % before, {100 * self.after:.1f} % after; {kept}"

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table with the columns `COLUMNS`."""
        return [
            (
                c.name,
                str(c.samples),
                f"{100 * c.before:.1f}",
                f"{100 * c.after:.1f}",
                f"{100 * c.change:+.1f}",
                str(c.lost),
                str(c.gained),
                c.taken_by or "–",
            )
            for c in self.classes
        ]

    def __repr__(self) -> str:
        cells = [COLUMNS, *self.rows()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.sentence, *lines])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        return f"<table><caption>{escape(self.sentence)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {
            "before": self.before,
            "after": self.after,
            "kept": self.kept if self.kept == self.kept else None,
            "classes": [{**vars(c), "change": c.change} for c in self.classes],
        }

    def to_pandas(self) -> DataFrame:
        """One row for each class.

        Raises:
            ValueError: pandas is not installed.
        """
        rows = [{**vars(c), "change": c.change} for c in self.classes]
        return needed("pandas", "data", "a data frame").DataFrame(rows)  # type: ignore[no-any-return]


COLUMNS = ("class", "samples", "before (%)", "after (%)", "change", "lost", "gained", "taken for")


def retention(
    before: nn.Module | Tensor,
    after: nn.Module | Tensor,
    data: Benchmark | DataLoader[Any] | tuple[Tensor, Tensor],
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 512,
) -> Retention:
    """Compares two states of a network, or two networks, on the same test data, class by class.

    Args:
        before: the network before, such as a ``copy.deepcopy`` of it, or its predicted classes, (samples,).
        after: the network after, or its predicted classes.
        data: a benchmark, whose test experiences are taken together; or a loader of (inputs, targets); or inputs and targets.
        class_names: by label; None: those of the benchmark, or the labels.
        batch_size: samples per forward pass. Samples are mixed, so that no batch tells a network their class.

    Returns:
        What was lost and gained.

    Raises:
        ValueError: no samples, predictions of another number, or outputs that are not (batch, classes).
        TypeError: data of another kind.

    Example:
        >>> before = nn.Identity()
        >>> after = torch.tensor([0, 0, 1])  # Of the two samples of class 1, one is taken for class 0.
        >>> report = retention(before, after, (torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 1])))
        >>> [(c.name, c.before, c.after, c.lost, c.taken_by) for c in report.classes]
        [('1', 1.0, 0.5, 1, '0'), ('0', 1.0, 1.0, 0, None)]
        >>> round(report.kept, 3)
        0.667
    """
    inputs, targets = _samples(data)
    if len(targets) == 0:
        raise ValueError("retention needs test samples, and these data have none")
    if class_names is None and isinstance(data, Benchmark):
        class_names = getattr(data, "class_names", None)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    was, now = (_predicted(state, inputs, targets, order, batch_size) for state in (before, after))
    rows = []
    for label in targets.unique().tolist():
        of_class = targets == label
        right, still = (was == targets) & of_class, (now == targets) & of_class
        lost = right & ~still
        rows.append(
            ClassRetention(
                name=_name(label, class_names),
                samples=int(of_class.sum()),
                before=float(right.sum() / of_class.sum()),
                after=float(still.sum() / of_class.sum()),
                lost=int(lost.sum()),
                gained=int((still & ~right).sum()),
                taken_by=_name(int(now[lost].mode().values), class_names) if lost.any() else None,
            )
        )
    return Retention(tuple(sorted(rows, key=lambda row: row.change)))


def _predicted(state: nn.Module | Tensor, inputs: Tensor, targets: Tensor, order: Tensor, batch_size: int) -> Tensor:
    if isinstance(state, Tensor):
        if state.shape != targets.shape:
            raise ValueError(f"expected a predicted class for each of {len(targets)} samples, got {tuple(state.shape)}")
        return state.cpu()
    predictions = torch.empty(len(targets), dtype=torch.long)
    predictions[order] = predict(state, inputs[order], batch_size=batch_size)
    return predictions


def _samples(data: object) -> tuple[Tensor, Tensor]:
    parts: list[tuple[Tensor, Tensor]]
    if isinstance(data, tuple) and len(data) == 2:
        parts = [data]
    elif isinstance(data, Benchmark):
        parts = [experience_tensors(experience) for experience in data.test_stream]
    elif isinstance(data, DataLoader):
        parts = [(batch[0], batch[1]) for batch in data]
    else:
        raise TypeError(f"data must be a benchmark, a DataLoader, or inputs and targets, got {type(data).__name__}")
    if not parts:
        return torch.empty(0), torch.empty(0, dtype=torch.long)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]).cpu()


def _name(label: int, class_names: Sequence[str] | None) -> str:
    return str(class_names[label]) if class_names is not None and label < len(class_names) else str(label)

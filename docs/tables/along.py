"""Accuracy along a stream of several learners side by side, from committed results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docs.tables.results import DOCS, committed
from lit_meta.report.runs import Estimate
from lit_meta.report.stream_figures import accuracy_along_stream
from lit_meta.report.style import learner_series, run_series


@dataclass(frozen=True)
class Lines:
    """The lines of a figure.

    Attributes:
        of: by label, an experiment, with ``/learner`` where it is not the rule.
        last: of how many of the experiences seen so far the accuracy is; None for all.
    """

    of: Mapping[str, str]
    last: int | None = None


FIGURES = {
    "one-class-at-a-time": Lines(
        {
            "RecursiveReadout": "recursive-readout-mnist",
            "NACA": "naca-mlp-mnist-standard",
            "NACA, hidden plasticity off": "naca-mlp-mnist-standard/plasticity-off",
            "EWC": "naca-mlp-mnist-paper/ewc",
            "naive": "naca-mlp-mnist-paper/naive",
            "joint bound of an MLP": "split-mnist-class/joint",
        }
    ),
    "long-stream": Lines(
        {
            "MESU": "permuted-mnist-long",
            "BGD": "permuted-mnist-long/bgd",
            "EWC": "permuted-mnist-long/ewc",
            "naive": "permuted-mnist-long/naive",
        },
        last=5,
    ),
}


def seen_so_far(matrix: Sequence[Sequence[float]], last: int | None = None) -> list[float]:
    """After each experience, the average accuracy on the experiences seen so far, or on the last of them.

    Args:
        matrix: (training experiences, test experiences), in [0, 1]. A single row, as of a joint bound, is of all experiences.
        last: how many; None for all.

    Example:
        >>> seen_so_far([[1.0, 0.0], [0.5, 1.0]]), seen_so_far([[0.5, 1.0]])
        ([1.0, 0.75], [0.75])
        >>> seen_so_far([[1.0, 0.0], [0.5, 1.0]], last=1)
        [1.0, 1.0]
    """
    rows = torch.tensor(matrix, dtype=torch.float64)
    if len(rows) == 1:
        return [float(rows.mean())]
    return [float(row[max(0, i - last) if last else 0 : i].mean()) for i, row in enumerate(rows, 1)]


def read(folder: Path, name: str, last: int | None = None) -> Tensor:
    """The means over seeds of one learner's accuracy along its stream.

    Args:
        folder: of the JSON files.
        name: of an experiment, with ``/learner`` where it is not its rule.
        last: as of `seen_so_far`.

    Raises:
        FileNotFoundError: there are no results of that name.
        ValueError: the results lack that learner.

    Returns:
        (experiences,), or (1,) of a joint bound.
    """
    experiment, _, learner = name.partition("/")
    report = committed(folder, experiment)
    if "accuracy_matrix" not in report.get(learner or "rule", {}):
        raise ValueError(f"{folder / experiment}.json holds no learner {learner or 'rule'!r}")
    return torch.tensor(seen_so_far(report[learner or "rule"]["accuracy_matrix"], last))


def figure(accuracies: dict[str, Tensor], last: int | None = None) -> Figure:
    """Lines of learners on a stream, by label; a single value, a joint bound, is a horizontal line.

    Raises:
        ValueError: no stream among them, or streams of different lengths.
    """
    lengths = {len(values) for values in accuracies.values()} - {1}
    if len(lengths) != 1:
        raise ValueError(f"expected streams of the same number of experiences, got {sorted(lengths) or 'none'}")
    estimates = {label: Estimate(values, values, values, 1) for label, values in accuracies.items()}
    lines = [label for label, values in accuracies.items() if len(values) > 1]
    bounds = {
        label: Estimate(bound.mean[0], bound.low[0], bound.high[0], 1)
        for label, bound in estimates.items()
        if label not in lines
    }
    made = accuracy_along_stream(
        {label: (estimates[label], run_series(i)) for i, label in enumerate(lines)},
        {label: (bound, learner_series("joint", ["joint"])) for label, bound in bounds.items()},
    )
    if last:
        lowest = min(float(values.min()) for values in accuracies.values())
        made.axes[0].set_ylabel(f"accuracy on the last {last} (%)")
        made.axes[0].set_ylim(10 * int(10 * lowest), 100)  # Lines that lie together at the top are told apart.
    return made


def main(pictures: Path = DOCS / "figures", folder: Path = DOCS / "results") -> None:
    """Draws the figures."""
    for name, lines in FIGURES.items():
        accuracies = {label: read(folder, experiment, lines.last) for label, experiment in lines.of.items()}
        # Without the version of matplotlib the file changes only where the results do.
        figure(accuracies, lines.last).savefig(pictures / f"{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""Accuracy along a stream of several learners side by side, from committed results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docs.tables.results import DOCS, committed
from lit_meta.report.runs import Estimate
from lit_meta.report.stream_figures import accuracy_along_stream
from lit_meta.report.style import learner_series, run_series

# The lines of the figure: label, experiment, and learner where it is not the rule.
LINES = {
    "RecursiveReadout": "recursive-readout-mnist",
    "NACA": "naca-mlp-mnist-standard",
    "NACA, hidden plasticity off": "naca-mlp-mnist-standard/plasticity-off",
    "EWC": "naca-mlp-mnist-paper/ewc",
    "naive": "naca-mlp-mnist-paper/naive",
    "joint bound of an MLP": "split-mnist-class/joint",
}


def seen_so_far(matrix: Sequence[Sequence[float]]) -> list[float]:
    """After each experience, the average accuracy on the experiences seen so far.

    Args:
        matrix: (training experiences, test experiences), in [0, 1]. A single row, as of a joint bound, is of all experiences.

    Example:
        >>> seen_so_far([[1.0, 0.0], [0.5, 1.0]]), seen_so_far([[0.5, 1.0]])
        ([1.0, 0.75], [0.75])
    """
    rows = torch.tensor(matrix, dtype=torch.float64)
    if len(rows) == 1:
        return [float(rows.mean())]
    return [float(row[: i + 1].mean()) for i, row in enumerate(rows)]


def read(folder: Path, name: str) -> Tensor:
    """The means over seeds of one learner's accuracy along its stream.

    Args:
        folder: of the JSON files.
        name: of an experiment, with ``/learner`` where it is not its rule.

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
    return torch.tensor(seen_so_far(report[learner or "rule"]["accuracy_matrix"]))


def figure(accuracies: dict[str, Tensor]) -> Figure:
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
    return accuracy_along_stream(
        {label: (estimates[label], run_series(i)) for i, label in enumerate(lines)},
        {label: (bound, learner_series("joint", ["joint"])) for label, bound in bounds.items()},
    )


def main(picture: Path = DOCS / "figures" / "one-class-at-a-time.png", folder: Path = DOCS / "results") -> None:
    """Draws the figure."""
    lines = {label: read(folder, name) for label, name in LINES.items()}
    # Without the version of matplotlib the file changes only where the results do.
    figure(lines).savefig(picture, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()

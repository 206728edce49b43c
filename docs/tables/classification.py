"""NACA on stationary data, beside backpropagation on the same network: one table, made from committed results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.tables.results import DOCS, committed, write
from lit_meta.experiments import load_experiment
from lit_meta.experiments.summary import percent

# Data, network, what the publication reports for NACA and for backpropagation (on which data, where on others), experiment.
_ROWS = (
    ("MNIST", "ANN, 784-1000-10", "–", "–", "mlp.naca_mnist"),
    ("MNIST", "the same, settings of the published code", "–", "–", "naca-mlp-mnist-classification-authors"),
    ("MNIST", "SNN, 784-1000-10", "96.43", "–", "lif-mlp.naca_mnist"),
    ("MNIST", "ANN, conv64-conv128-1000-10", "99.37", "99.22", "naca-convnet-mnist-classification"),
    (
        "MNIST",
        "the same, settings of the published code",
        "99.37",
        "99.22",
        "naca-convnet-mnist-classification-authors",
    ),
    ("MNIST", "SNN, conv64-conv128-1000-10", "99.03", "–", "naca-snn-convnet-mnist-classification"),
    (
        "MNIST",
        "the same, gradient of the published code",
        "99.03",
        "–",
        "naca-snn-convnet-mnist-classification-authors",
    ),
    ("spoken digits", "ANN, 900-1000-10", "TIDigits: 99.37", "TIDigits: 98.94", "naca-mlp-fsdd-classification"),
    ("spoken digits", "SNN, 900-1000-10", "TIDigits: 98.56", "–", "naca-snn-fsdd-classification"),
)


@dataclass(frozen=True)
class Row:
    """One network on one data set.

    Attributes:
        data: what is learned.
        network: what learns it.
        published: accuracies of NACA and of backpropagation in the publication, as printed there.
        accuracy: by ``"NACA"``, ``"backpropagation"`` and ``"off"`` (only the head trained), summaries over
            seeds; None where that was not run.
        passes: over the training data.
        seeds: how many.
    """

    data: str
    network: str
    published: tuple[str, str]
    accuracy: dict[str, dict[str, Any] | None]
    passes: int
    seeds: int


def rows(folder: Path) -> list[Row]:
    """The rows of the table from the experiments' JSON files in ``folder``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has no results of the rule.
    """
    entries = []
    for data, network, naca, backpropagation, name in _ROWS:
        report = committed(folder, name)
        if "rule" not in report:
            raise ValueError(f"{folder / name}.json has no results of the rule: run that learner too")
        accuracy = {
            label: report.get(learner, {}).get("average_accuracy")
            for label, learner in (("NACA", "rule"), ("backpropagation", "naive"), ("off", "plasticity-off"))
        }
        passes = load_experiment(name).max_epochs
        entries.append(Row(data, network, (naca, backpropagation), accuracy, passes, len(report["seeds"])))
    return entries


def table(entries: Sequence[Row]) -> str:
    """The rows as a Markdown table of test accuracies in per cent, mean ± standard deviation over seeds."""
    lines = [
        "| data | network | NACA, published | NACA | backpropagation, published | backpropagation | hidden layers frozen "
        "| passes | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in entries:
        naca, backpropagation, frozen = (percent(row.accuracy[key]) for key in ("NACA", "backpropagation", "off"))
        cells = [row.data, row.network, row.published[0], naca, row.published[1], backpropagation, frozen]
        lines.append(f"| {' | '.join([*cells, str(row.passes), str(row.seeds)])} |")
    return "\n".join(lines)


def main(page: Path = DOCS / "classification.md", folder: Path = DOCS / "results") -> bool:
    """Writes the table into its page; returns whether that changed the page."""
    return write(page, table(rows(folder)))


if __name__ == "__main__":
    main()

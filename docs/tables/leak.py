"""The leak of the published NACA protocol: its table and figure, and the streams of the publication, from committed results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from docs.tables.results import DOCS, committed, write
from lit_meta.experiments.summary import percent

PAPER, STANDARD = "naca-mlp-mnist-paper", "naca-mlp-mnist-standard"
BATCHINGS = ("one experience a batch", "shuffled", "one sample a batch")
# Mean and standard error of the publication, in per cent.
PUBLISHED = (79.18, 3.78)
_ROWS = (
    (PAPER, "rule", "batch mean (published)", "NACA"),
    (PAPER, "plasticity-off", "batch mean (published)", "off"),
    (PAPER, "backpropagation-gated", "batch mean (published)", "backpropagation"),
    (STANDARD, "rule", "own sample", "NACA"),
    (STANDARD, "plasticity-off", "own sample", "off"),
    (STANDARD, "backpropagation-gated", "own sample", "backpropagation"),
    (STANDARD, "no-gate", "none", "NACA"),
    (STANDARD, "no-gate-plasticity-off", "none", "off"),
)

# The streams of the publication: data, network, mean and standard error of the publication in per cent, experiments.
# Without a published number the data stand in for others of the publication.
_STREAMS = (
    ("MNIST", "ANN", (79.18, 3.78), PAPER, STANDARD),
    ("MNIST", "SNN", (60.06, 4.45), "naca-snn-mnist-paper", "naca-snn-mnist-standard"),
    ("CIFAR-10", "ANN", (60.84, 2.60), "naca-mlp-cifar10-paper", "naca-mlp-cifar10-standard"),
    ("handwritten digits 8 x 8", "ANN", None, "naca-mlp-digits-paper", "naca-mlp-digits-standard"),
    ("handwritten digits 8 x 8", "SNN", None, "naca-snn-digits-paper", "naca-snn-digits-standard"),
    ("spoken digits", "ANN", None, "naca-mlp-fsdd-paper", "naca-mlp-fsdd-standard"),
    ("spoken digits", "SNN", None, "naca-snn-fsdd-paper", "naca-snn-fsdd-standard"),
    ("Latin letters", "ANN", None, "naca-mlp-omniglot-latin-paper", "naca-mlp-omniglot-latin-standard"),
    ("Greek letters", "ANN", None, "naca-mlp-omniglot-greek-paper", "naca-mlp-omniglot-greek-standard"),
    ("pen strokes, Latin", "SNN", None, "naca-snn-strokes-paper", "naca-snn-strokes-standard"),
)
# Baselines without a gate: their name on the page, and the learner.
_BESIDE = {"naive": "naive", "EWC": "ewc", "joint": "joint"}
# Of Okabe and Ito: distinguishable with colour blindness and in grey.
_COLORS = ("#E69F00", "#0072B2", "#999999")


@dataclass(frozen=True)
class Row:
    """One way to train, and its accuracy under each way to make test batches.

    Attributes:
        gate: what the gate sees.
        plasticity: how the hidden layer learns.
        accuracy: by the names in `BATCHINGS`, summaries over seeds.
    """

    gate: str
    plasticity: str
    accuracy: dict[str, dict[str, Any]]


def rows(folder: Path) -> list[Row]:
    """The rows of the table from the two experiments' JSON files in ``folder``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file lacks a learner, or was made without ``batching: true``.
    """
    reports = {name: committed(folder, name) for name in (PAPER, STANDARD)}
    return [Row(gate, plasticity, _by_batching(reports[name], learner)) for name, learner, gate, plasticity in _ROWS]


def _by_batching(report: dict[str, Any], learner: str) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] | None = report.get(learner, {}).get("accuracy_by_batching")
    if entries is None:
        name = report.get("name", "the experiment")
        raise ValueError(f"{name}.json has no accuracy by batching of {learner!r}: run all of the experiment")
    return entries


@dataclass(frozen=True)
class Stream:
    """A stream of one class an experience, under the published protocol and under one without a leak.

    Attributes:
        data: what is learned.
        network: ``"ANN"`` or ``"SNN"``.
        published: mean and standard error of the publication, in per cent; None for data that stand in for others.
        paper: by ``"NACA"`` and ``"off"`` (hidden plasticity off), accuracy by the names in `BATCHINGS` under the published
            gate.
        standard: the same learners' accuracy where the gate sees each sample alone; None where there is no such experiment.
        beside: accuracy, without a gate, of ``"naive"`` training, ``"EWC"`` and the ``"joint"`` bound, those that were run.
        seeds: how many.
    """

    data: str
    network: str
    published: tuple[float, float] | None
    paper: dict[str, dict[str, dict[str, Any]]]
    standard: dict[str, dict[str, Any]] | None
    beside: dict[str, dict[str, Any]]
    seeds: int


def streams(folder: Path) -> list[Stream]:
    """The streams of the publication, and those that stand in for them, from the experiments' JSON files in ``folder``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file lacks a learner, or was made without ``batching: true``.
    """
    entries = []
    learners = {"NACA": "rule", "off": "plasticity-off"}
    for data, network, published, paper, standard in _STREAMS:
        report = committed(folder, paper)
        leaky = {label: _by_batching(report, learner) for label, learner in learners.items()}
        own, twin = None, {}
        if standard is not None:
            twin = committed(folder, standard)
            own = {label: _by_batching(twin, learner)["shuffled"] for label, learner in learners.items()}
        # Without a gate nothing differs between the two protocols but the batches of the test.
        run = {**twin, **report}
        beside = {label: run[learner]["average_accuracy"] for label, learner in _BESIDE.items() if learner in run}
        entries.append(Stream(data, network, published, leaky, own, beside, len(report["seeds"])))
    return entries


def streams_table(entries: Sequence[Stream]) -> str:
    """The streams as a Markdown table of accuracies in per cent, mean ± standard deviation over seeds."""
    lines = [
        "| data | network | published (± standard error) | one class a batch: NACA | off | shuffled: NACA | off "
        "| own-sample gate: NACA | off | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    pure, mixed, _ = BATCHINGS
    for stream in entries:
        published = "–" if stream.published is None else f"{stream.published[0]:.2f} ± {stream.published[1]:.2f}"
        leaky = [percent(stream.paper[learner][how]) for how in (pure, mixed) for learner in ("NACA", "off")]
        own = [percent(stream.standard[learner] if stream.standard else None) for learner in ("NACA", "off")]
        cells = [stream.data, stream.network, published, *leaky, *own, str(stream.seeds)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_table(entries: Sequence[Stream]) -> str:
    """The baselines on the streams: accuracies in per cent, mean ± standard deviation over seeds, in Markdown."""
    lines = [f"| data | network | {' | '.join(_BESIDE)} | seeds |", "|---|---|---|---|---|---|"]
    for stream in entries:
        if stream.beside:
            cells = [
                stream.data,
                stream.network,
                *(percent(stream.beside.get(label)) for label in _BESIDE),
                str(stream.seeds),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(entries: Sequence[Row]) -> str:
    """The rows as a Markdown table of accuracies in per cent, mean ± standard deviation over seeds."""
    lines = [
        "| the gate sees | hidden plasticity | one class a batch (as published) | shuffled batches | one sample a batch |",
        "|---|---|---|---|---|",
    ]
    for row in entries:
        cells = [row.gate, row.plasticity, *(percent(row.accuracy[how]) for how in BATCHINGS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(entries: Sequence[Row]) -> Figure:
    """The rows as bars with standard deviations, next to the published number and chance."""
    picture = Figure(figsize=(10, 4.6), layout="constrained", dpi=150)
    axes = picture.add_subplot()
    labels = ("one class a batch (published protocol)", "shuffled batches", "one sample a batch")
    for k, (how, label, color) in enumerate(zip(BATCHINGS, labels, _COLORS, strict=True)):
        means = [100 * row.accuracy[how]["mean"] for row in entries]
        spreads = [100 * (row.accuracy[how]["sd"] or 0.0) for row in entries]
        places = [i + 0.27 * (k - 1) for i in range(len(entries))]
        axes.bar(places, means, 0.25, yerr=spreads, capsize=2, color=color, label=label, error_kw={"linewidth": 0.8})
    mean, error = PUBLISHED
    axes.axhline(mean, color="black", linewidth=0.9, zorder=0, label=f"published, {mean} ± {error} (standard error)")
    axes.axhspan(mean - error, mean + error, color="black", alpha=0.1, linewidth=0, zorder=0)
    axes.axhline(10, color="black", linewidth=0.9, linestyle=":", label="chance")
    names = {"NACA": "NACA", "off": "hidden\nplasticity off", "backpropagation": "back-\npropagation"}
    axes.set_xticks(range(len(entries)), [names[row.plasticity] for row in entries])
    gates = [row.gate for row in entries]
    for gate in dict.fromkeys(gates):
        first, last = gates.index(gate), len(gates) - 1 - gates[::-1].index(gate)
        axes.text((first + last) / 2, 104, f"gate: {gate}", ha="center", va="bottom", fontsize=10)
        if first:
            axes.axvline(first - 0.5, color="black", linewidth=0.6)
    axes.set_xlim(-0.5, len(entries) - 0.5)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy after ten classes (%)")
    axes.set_title("MNIST, one class at a time: what the test batch tells the gate")
    picture.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return picture


def main(
    page: Path = DOCS / "leak.md", picture: Path = DOCS / "figures" / "leak.png", folder: Path = DOCS / "results"
) -> bool:
    """Writes the three tables into their page, and the figure; returns whether the page changed."""
    lines, published = rows(folder), streams(folder)
    # Without the version of matplotlib the file changes only where the results do.
    figure(lines).savefig(picture, metadata={"Software": None})
    sections = {"results": table(lines), "streams": streams_table(published), "beside": beside_table(published)}
    changed = [write(page, text, section=section) for section, text in sections.items()]
    return any(changed)


if __name__ == "__main__":
    main()

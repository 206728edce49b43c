"""Panels on a run's stream: accuracy along it, accuracy matrices, forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from lit_meta.report.panel import Panel
from lit_meta.report.runs import Estimate, LearnerRun, Run
from lit_meta.report.stream_figures import accuracy_along_stream, accuracy_matrices, forgetting_by
from lit_meta.report.style import Series, learner_series
from lit_meta.report.text import learner_label


def along_stream(run: Run) -> Panel:
    """Accuracy along the stream, with the bounds of the run."""
    names = list(run.learners)
    lines = {
        learner_label(run, name): (learner.seen, learner_series(name, names)) for name, learner in run.streams.items()
    }
    bounds = {
        learner_label(run, name): (learner.accuracy, learner_series(name, names))
        for name, learner in run.learners.items()
        if not learner.is_stream
    }
    ends = "; ".join(f"{label} ends at {100 * float(seen.mean[-1]):.1f} %" for label, (seen, _) in lines.items())
    return Panel(
        "accuracy_along_stream",
        "Accuracy along the stream",
        "After each experience the network is tested on all experiences seen so far. A learner that remembers only the last "
        f"of n experiences falls to 1/n. Bands: 95 % t-intervals over seeds.{coincide(lines)}",
        f"Line chart. {ends}.",
        partial(accuracy_along_stream, lines, bounds),
    )


def coincide(lines: Mapping[str, tuple[Estimate, Series]]) -> str:
    """Says which lines lie on each other, within a point of accuracy everywhere; empty if none do."""
    sentences = []
    for (first, (one, _)), (second, (other, _)) in combinations(lines.items(), 2):
        if one.mean.shape == other.mean.shape:
            apart = 100 * float((one.mean - other.mean).abs().max())
            if apart < 1.0:
                sentences.append(f" {first} and {second} lie on each other: they differ by at most {apart:.1f} points.")
    return "".join(sentences)


def matrices(run: Run) -> Panel:
    """Accuracy matrices of up to three learners."""
    shown = {learner_label(run, name): learner.matrices.mean(0) for name, learner in list(run.streams.items())[:3]}
    main = next(iter(run.streams.values())).matrices.mean(0)
    return Panel(
        "accuracy_matrix",
        "Accuracy matrix",
        "Row: the experience learned last. Column: the experience tested. The diagonal is the experience just learned; below "
        "it are earlier experiences, above it those not yet learned. Means over seeds; at most three learners.",
        f"Heat map. Mean of the diagonal {100 * float(main.diagonal().mean()):.1f} %, "
        f"of the last row {100 * float(main[-1].mean()):.1f} %.",
        partial(accuracy_matrices, shown),
    )


def forgetting(run: Run) -> Panel:
    """Accuracy lost on each experience."""
    names = list(run.learners)
    panels = {}
    for name, learner in list(run.streams.items())[:3]:
        mean = learner.matrices.mean(0)
        panels[learner_label(run, name)] = (mean.diagonal(), mean[-1], learner_series(name, names))
    labels = [str(i + 1) for i in range(run.length)]
    return Panel(
        "forgetting",
        "Forgetting, experience by experience",
        "The length of a line is the accuracy lost between learning an experience and the end of the stream. Experiences are "
        "in the order in which they were learned. Means over seeds; at most three learners.",
        _lost(panels, labels, "experience"),
        partial(forgetting_by, "experience", labels, panels),
    )


def forgetting_by_class(run: Run) -> Panel | None:
    """Accuracy lost on each class; None if experiences hold several classes or the run did not record which."""
    names = list(run.learners)
    panels = {}
    labels: list[str] = []
    for name, learner in list(run.streams.items())[:3]:
        accuracies = _by_class(learner)
        if accuracies is None:
            return None
        labels, learned, final = accuracies
        panels[learner_label(run, name)] = (learned, final, learner_series(name, names))
    return Panel(
        "forgetting_by_class",
        "Forgetting, class by class",
        "As above, by class: each seed learned the classes in a different order, so this depends less on the position in the "
        "stream and more on how hard a class is to retain.",
        _lost(panels, labels, "class"),
        partial(forgetting_by, "class", labels, panels),
    )


def _by_class(learner: LearnerRun) -> tuple[list[str], Tensor, Tensor] | None:
    """Class labels, and their mean accuracy when learned and at the end; None if experiences hold several classes."""
    orders = [seed.classes for seed in learner.seeds]
    if not all(order and all(len(classes) == 1 for classes in order) for order in orders):
        return None
    labels = sorted(classes[0] for classes in orders[0])
    learned, final = torch.zeros(2, len(labels), dtype=torch.float64)
    for seed in learner.seeds:
        for position, (label,) in enumerate(seed.classes):
            learned[labels.index(label)] += seed.matrix[position, position] / len(orders)
            final[labels.index(label)] += seed.matrix[-1, position] / len(orders)
    return [str(label) for label in labels], learned, final


def _lost(panels: dict[str, tuple[Tensor, Tensor, Series]], labels: list[str], what: str) -> str:
    parts = []
    for title, (learned, final, _) in panels.items():
        worst = int((learned - final).argmax())
        parts.append(f"{title} lost most on {what} {labels[worst]}: {100 * float((learned - final)[worst]):.0f} points")
    return f"Dumbbell chart. {'; '.join(parts)}."

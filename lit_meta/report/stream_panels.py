"""Figures of a run's stream, with their words."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_meta.report.panel import Panel
from lit_meta.report.runs import LearnerRun, Run
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
    ends = "; ".join(f"{label} ends at {100 * float(found.mean[-1]):.1f} %" for label, (found, _) in lines.items())
    return Panel(
        "accuracy_along_stream",
        "Accuracy along the stream",
        "After each experience the network is tested on all experiences it has seen so far. A learner that forgets everything "
        "but the last falls as one over their number. Bands: 95 % bootstrap intervals over seeds.",
        f"Line chart. {ends}.",
        accuracy_along_stream(lines, bounds),
    )


def matrices(run: Run) -> Panel:
    """Accuracy matrices of up to three learners."""
    shown = {learner_label(run, name): learner.matrices.mean(0) for name, learner in list(run.streams.items())[:3]}
    main = next(iter(run.streams.values())).matrices.mean(0)
    return Panel(
        "accuracy_matrix",
        "Accuracy matrix",
        "Row: the experience learned last. Column: the experience tested. The diagonal is what was just learned; below it is "
        "what is still known, above it what was not yet learned. Means over seeds; three learners at most.",
        f"Heat map. Mean of the diagonal {100 * float(main.diagonal().mean()):.1f} %, "
        f"of the last row {100 * float(main[-1].mean()):.1f} %.",
        accuracy_matrices(shown),
    )


def forgetting(run: Run) -> Panel:
    """What was lost of each experience."""
    names = list(run.learners)
    panels = {}
    for name, learner in list(run.streams.items())[:3]:
        mean = learner.matrices.mean(0)
        panels[learner_label(run, name)] = (mean.diagonal(), mean[-1], learner_series(name, names))
    labels = [str(i + 1) for i in range(run.length)]
    return Panel(
        "forgetting",
        "Forgetting, experience by experience",
        "The length of a line is what was lost between learning an experience and the end of the stream. Experiences stand in "
        "the order in which they were learned. Means over seeds; three learners at most.",
        _lost(panels, labels, "experience"),
        forgetting_by("experience", labels, panels),
    )


def forgetting_by_class(run: Run) -> Panel | None:
    """What was lost of each class; None where experiences hold several classes or it was not kept which."""
    names = list(run.learners)
    panels = {}
    labels: list[str] = []
    for name, learner in list(run.streams.items())[:3]:
        found = _by_class(learner)
        if found is None:
            return None
        labels, learned, final = found
        panels[learner_label(run, name)] = (learned, final, learner_series(name, names))
    return Panel(
        "forgetting_by_class",
        "Forgetting, class by class",
        "As above, by class: each seed learned the classes in another order, so that less hangs on the place in the stream "
        "here, and more on how hard a class is to keep.",
        _lost(panels, labels, "class"),
        forgetting_by("class", labels, panels),
    )


def _by_class(learner: LearnerRun) -> tuple[list[str], Tensor, Tensor] | None:
    """Class labels, and their mean accuracy when learned and at the end; None where experiences hold several classes."""
    orders = [one.classes for one in learner.seeds]
    if not all(order and all(len(classes) == 1 for classes in order) for order in orders):
        return None
    labels = sorted(classes[0] for classes in orders[0])
    learned, final = torch.zeros(2, len(labels), dtype=torch.float64)
    for one in learner.seeds:
        for position, (label,) in enumerate(one.classes):
            learned[labels.index(label)] += one.matrix[position, position] / len(orders)
            final[labels.index(label)] += one.matrix[-1, position] / len(orders)
    return [str(label) for label in labels], learned, final


def _lost(panels: dict[str, tuple[Tensor, Tensor, Series]], labels: list[str], what: str) -> str:
    parts = []
    for title, (learned, final, _) in panels.items():
        worst = int((learned - final).argmax())
        parts.append(f"{title} lost most on {what} {labels[worst]}: {100 * float((learned - final)[worst]):.0f} points")
    return f"Dumbbell chart. {'; '.join(parts)}."

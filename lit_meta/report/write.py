"""Writes a report to disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lit_meta.report.html import page
from lit_meta.report.panel import Panel
from lit_meta.report.panels import along_stream_panel, cost_panel, run_panels
from lit_meta.report.runs import Run, read_run
from lit_meta.report.style import save_figure
from lit_meta.utils.files import write_text
from lit_meta.utils.io import check_folder, check_target
from lit_meta.utils.specs import label


def write_report(
    run_dirs: Sequence[str | Path], *, file: str | Path | None = None, on_run: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Writes the figures of finished runs, and a single page that shows them all.

    Every figure is saved as PNG and SVG in its run's ``figures/``; those that compare runs go into a folder beside the page, as
    do those of a run whose folder is read-only.

    Args:
        run_dirs: folders of finished runs.
        file: of the page; by default ``report.html`` in the run's folder, with several runs in the folder of the first.
        on_run: called with the name of each run when its figures have been written.

    Returns:
        ``page``: its path; ``figures``: paths of all figures; ``runs``: for each run its name, folder, the average accuracy
        of every learner (mean, low, high, in [0, 1]) and the figures left out.

    Raises:
        ValueError: no folder, or one that cannot be read, or no place that can be written to; nothing is drawn then.
        FileNotFoundError: a folder without a finished run.
    """
    if not run_dirs:
        raise ValueError("a report needs at least one run folder")
    runs = [read_run(folder) for folder in run_dirs]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise ValueError("the same run folder was given twice")
    target = Path(file) if file is not None else runs[0].folder / "report.html"
    check_target(target)
    beside = target.parent / f"{target.stem}_figures"
    places = [_place(run, beside / f"{number}_{run.folder.resolve().name}") for number, run in enumerate(runs, 1)]
    written: list[str] = []
    gallery = []
    for run, place in zip(runs, places, strict=True):
        figures, left_out = run_panels(run)
        gallery.append((figures, left_out))
        for panel in figures:
            written += map(str, save_figure(panel.figure, place, panel.name, panel.title))
        if on_run is not None:
            on_run(run.name)
    comparison = compare(runs) if len(runs) > 1 else []
    for panel in comparison:
        written += map(str, save_figure(panel.figure, beside, panel.name, panel.title))
    write_text(target, page(runs, gallery, comparison))
    facts = [
        {"name": run.name, "folder": str(run.folder), "accuracy": _accuracies(run), "left_out": left_out}
        for run, (_, left_out) in zip(runs, gallery, strict=True)
    ]
    return {"page": str(target), "figures": written, "runs": facts}


def _place(run: Run, otherwise: Path) -> Path:
    """Where the figures of a run go: its own folder, which may be somebody else's."""
    try:
        check_folder(run.folder / "figures")
    except ValueError:
        check_folder(otherwise)
        return otherwise
    return run.folder / "figures"


def compare(runs: Sequence[Run]) -> list[Panel]:
    """Figures that compare several runs; only runs measured in the same way share an axis."""

    def kind(run: Run) -> tuple[str, int, str]:
        return label(run.experiment.scenario), run.length, run.experiment.protocol

    panels = []
    groups = [list(group) for _, group in groupby(sorted(runs, key=kind), key=kind)]
    for number, group in enumerate(groups):
        streams = [run for run in group if run.streams]
        if len(streams) > 1:
            panels.append(_numbered(along_stream_panel(streams), number, len(groups), kind(group[0])))
        if len(group) > 1:
            panels.append(_numbered(cost_panel(group), number, len(groups), kind(group[0])))
    return panels


def _numbered(panel: Panel, number: int, groups: int, kind: tuple[str, int, str]) -> Panel:
    if groups == 1:
        return panel
    title = f"{panel.title}: {kind[0]}, {kind[1]} experiences, protocol {kind[2]}"
    return Panel(f"{panel.name}_{number + 1}", title, panel.caption, panel.summary, panel.draw)


def _accuracies(run: Run) -> dict[str, dict[str, float]]:
    accuracies = {}
    for name, learner in run.learners.items():
        estimate = learner.accuracy
        accuracies[name] = {part: float(getattr(estimate, part)) for part in ("mean", "low", "high")}
    return accuracies

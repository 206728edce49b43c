"""All figures of a run, figures that compare several runs, and why some could not be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lit_meta.report.cost_figures import CostPoint, cost_against_accuracy
from lit_meta.report.network_panels import raster, synapses, weight_distances
from lit_meta.report.panel import Panel
from lit_meta.report.runs import Estimate, Run
from lit_meta.report.stream_figures import accuracy_along_stream
from lit_meta.report.stream_panels import along_stream, coincide, forgetting, forgetting_by_class, matrices
from lit_meta.report.style import Series, learner_series, run_series
from lit_meta.report.text import learner_label


def run_panels(run: Run) -> tuple[list[Panel], list[str]]:
    """All figures that a run allows, and a sentence for each that it does not."""
    panels: list[Panel] = []
    left_out: list[str] = []
    if run.streams:
        panels += [along_stream(run), matrices(run), forgetting(run)]
        by_class = forgetting_by_class(run)
        if by_class is None:
            left_out.append(
                "Forgetting by class: needs a single class in each experience, and a run that recorded which class it was."
            )
        else:
            panels.append(by_class)
    else:
        left_out.append("Accuracy along the stream, accuracy matrix, forgetting: the run has no stream of experiences.")
    panels.append(cost_panel([run]))
    for panel, name in (
        (weight_distances(run), "How far weights moved"),
        (synapses(run), "Synapses changed by each experience"),
    ):
        if isinstance(panel, str):
            left_out.append(f"{name}: {panel}")
        else:
            panels.append(panel)
    spikes = raster(run)
    if isinstance(spikes, str):
        left_out.append(f"Spike raster: {spikes}")
    else:
        panels.append(spikes)
    return panels, left_out


def along_stream_panel(runs: Sequence[Run]) -> Panel:
    """The rules of several runs of the same scenario in one figure."""
    lines: dict[str, tuple[Estimate, Series]] = {}
    for index, run in enumerate(runs):
        main = next(iter(run.streams.values()))
        lines[f"{learner_label(run, main.name)} ({run.name})"] = (main.seen, run_series(index))
    ends = "; ".join(f"{label} ends at {100 * float(seen.mean[-1]):.1f} %" for label, (seen, _) in lines.items())
    return Panel(
        "side_by_side",
        "Accuracy along the stream, side by side",
        "Each line is the rule of one run: mean accuracy on the experiences seen so far. Bands: 95 % t-intervals over "
        "seeds. The runs share scenario, number of experiences and protocol, but not necessarily the network."
        f"{coincide(lines)}",
        f"Line chart of {len(runs)} runs. {ends}.",
        partial(accuracy_along_stream, lines, {}),
    )


def cost_panel(runs: Sequence[Run]) -> Panel:
    """Cost against accuracy, for all learners of all runs."""
    points = []
    for index, run in enumerate(runs):
        for name, learner in run.learners.items():
            style = learner_series(name, list(run.learners))
            if len(runs) > 1:
                style = Series(run_series(index).color, style.marker, style.line)
            label = learner_label(run, name) if len(runs) == 1 else f"{run.name}: {name}"
            memory = (learner.cost("parameter_bytes") + learner.cost("state_bytes")) / 1024
            counted = all("energy_joules" in seed.cost for seed in learner.seeds)
            points.append(
                CostPoint(
                    label,
                    learner.cost("seconds"),
                    memory,
                    learner.accuracy,
                    style,
                    bound=not learner.is_stream,
                    millijoules=1000 * learner.cost("energy_joules") if counted else None,
                )
            )
    cells = "; ".join(
        f"{p.label}: {100 * float(p.accuracy.mean):.1f} % in {p.seconds:.2g} s with {p.kibibytes:.0f} KiB"
        for p in points
    )
    return Panel(
        "cost_accuracy",
        "Accuracy and cost",
        "Each row is a learner, each column a quantity. Hollow marks saw all data at once; they are a bound, not a candidate. "
        "Bars: 95 % intervals over seeds. Costs have a logarithmic scale. Training times are those of the machine the run was "
        "made on; memory is that of weights and rule. Energy, if counted, is estimated at 4.6 pJ per multiply-accumulate and "
        "0.9 pJ per accumulate.",
        f"Dot plot. {cells}.",
        partial(cost_against_accuracy, points),
    )

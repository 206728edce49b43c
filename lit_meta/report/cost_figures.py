"""Accuracy and cost, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lit_meta.report.runs import Estimate
from lit_meta.report.style import PAPER, Series, is_narrow, new_figure, styled


@dataclass(frozen=True)
class CostPoint:
    """Cost and accuracy of one learner of one run.

    Attributes:
        label: of the point.
        seconds: training time over the whole stream.
        kibibytes: size of the weights and the rule's memory.
        accuracy: average accuracy at the end, a scalar estimate.
        style: colour and marker.
        bound: whether it is a reference that saw all data at once.
        millijoules: estimated energy of learning; None if it was not counted.
    """

    label: str
    seconds: float
    kibibytes: float
    accuracy: Estimate
    style: Series
    bound: bool = False
    millijoules: float | None = None


def cost_against_accuracy(points: Sequence[CostPoint]) -> Figure:
    """Accuracy, training time, memory and, if all points have one, energy: a row for each learner.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> point = CostPoint("EWC", 2.0, 64.0, Estimate.of(torch.tensor([0.4, 0.5])), run_series(0))
        >>> [axes.get_xlabel() for axes in cost_against_accuracy([point]).axes]
        ['accuracy (%)', 'training (s)', 'memory (KiB)']
    """
    with styled():
        columns: dict[str, list[float]] = {
            "accuracy (%)": [100 * float(p.accuracy.mean) for p in points],
            "training (s)": [p.seconds for p in points],
            "memory (KiB)": [p.kibibytes for p in points],
        }
        energies = [p.millijoules for p in points if p.millijoules is not None]
        if len(energies) == len(points):
            columns["energy (mJ)"] = energies
        figure, panels = new_figure(len(columns), height=max(2.3, 0.9 + 0.36 * len(points)))
        for axes, (label, values) in zip(panels, columns.items(), strict=True):
            _dots(axes, points, values, label, accuracy=axes is panels[0])
        for axes in panels:
            named = is_narrow() or axes is panels[0]
            axes.set_yticks(range(len(points)), [p.label if named else "" for p in points])
    return figure


def _dots(axes: Axes, points: Sequence[CostPoint], values: Sequence[float], label: str, *, accuracy: bool) -> None:
    for row, (point, value) in enumerate(zip(points, values, strict=True)):
        spread = None
        if accuracy:
            low, high = 100 * float(point.accuracy.low), 100 * float(point.accuracy.high)
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            value,
            row,
            xerr=spread,
            color=point.style.color,
            marker=point.style.marker,
            markerfacecolor=PAPER if point.bound else point.style.color,
            markeredgewidth=1.5,
            markersize=7,
            elinewidth=1.3,
            ls="",
        )
        text = f"{value:.1f}" if accuracy else _short(value)
        axes.annotate(text, (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_ylim(len(points) - 0.5, -0.8)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    if accuracy:
        axes.set_xlim(-4, 104)
    elif min(values) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 3, max(values) * 3)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)


def _short(value: float) -> str:
    """Three digits, no exponent.

    Example:
        >>> _short(1234.5), _short(12.345), _short(0.012345)
        ('1,234', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

"""Accuracy against cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lit_meta.report.runs import Estimate
from lit_meta.report.style import FAINT, PAPER, Series, new_figure, styled


@dataclass(frozen=True)
class CostPoint:
    """One learner of one run in the plane of cost and accuracy.

    Attributes:
        label: of the point.
        seconds: training time over the whole stream.
        kibibytes: size of the weights and the rule's memory.
        accuracy: average accuracy at the end, a scalar estimate.
        style: colour and marker.
        bound: whether it is a reference that saw all data at once, and so no candidate for the front.
        millijoules: estimated energy of learning; None if it was not counted.
    """

    label: str
    seconds: float
    kibibytes: float
    accuracy: Estimate
    style: Series
    bound: bool = False
    millijoules: float | None = None


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other dominates: none is at most as expensive and at least as good, and different.

    Args:
        points: (cost, gain) of each.

    Returns:
        Indices in order of rising cost; of identical points, the first.

    Example:
        >>> pareto_front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8)])
        [0, 2]
    """
    front: list[int] = []
    best = float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front


def cost_against_accuracy(points: Sequence[CostPoint]) -> Figure:
    """Accuracy against training time, memory and, if all points have one, energy.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> point = CostPoint("EWC", 2.0, 64.0, Estimate.of(torch.tensor([0.4, 0.5])), run_series(0))
        >>> [axes.get_xlabel() for axes in cost_against_accuracy([point]).axes]
        ['training time (s)', 'weights and memory (KiB)']
    """
    with styled():
        costs = {
            "training time (s)": [p.seconds for p in points],
            "weights and memory (KiB)": [p.kibibytes for p in points],
        }
        energies = [p.millijoules for p in points if p.millijoules is not None]
        if len(energies) == len(points):
            costs["estimated energy (mJ)"] = energies
        figure, panels = new_figure(len(costs), height=3.5)
        for axes, (label, cost) in zip(panels, costs.items(), strict=True):
            _plane(axes, points, cost, label)
        panels[0].set_ylabel("average accuracy at the end (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, columnspacing=1.2)
    return figure


def _plane(axes: Axes, points: Sequence[CostPoint], cost: Sequence[float], label: str) -> None:
    candidates = [i for i, p in enumerate(points) if not p.bound]
    front = [candidates[i] for i in pareto_front([(cost[i], float(points[i].accuracy.mean)) for i in candidates])]
    if len(front) > 1:
        axes.step(
            [cost[i] for i in front],
            [100 * float(points[i].accuracy.mean) for i in front],
            where="post",
            color=FAINT,
            lw=1,
        )
    for point, x in zip(points, cost, strict=True):
        mean, low, high = (100 * float(v) for v in (point.accuracy.mean, point.accuracy.low, point.accuracy.high))
        axes.errorbar(
            x,
            mean,
            yerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]],
            color=point.style.color,
            marker=point.style.marker,
            markerfacecolor=PAPER if point.bound else point.style.color,
            markeredgewidth=1.5,
            markersize=7,
            elinewidth=1.3,
            ls="",
            label=point.label,
        )
    axes.set_ylim(0, 102)
    axes.set_xscale("log")
    low, high = min(cost), max(cost)
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)

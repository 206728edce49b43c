"""Figures of a stream: accuracy matrices, accuracy along it, forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from lit_meta.report.runs import Estimate
from lit_meta.report.style import (
    FAINT,
    INK,
    PAPER,
    SEQUENTIAL,
    Series,
    draw_lines,
    is_narrow,
    label_rows,
    legend_above,
    new_figure,
    plain,
    styled,
)

_NUMBERS_UP_TO = 12  # more columns leave no room for a number in each cell


def accuracy_matrices(matrices: Mapping[str, Tensor]) -> Figure:
    """Accuracy matrices side by side, one panel each.

    Args:
        matrices: by the panel's title, (training experiences, test experiences), in [0, 1].

    Example:
        >>> import torch
        >>> len(accuracy_matrices({"rule": torch.eye(3), "naive": torch.eye(3)}).axes)  # two panels and a scale
        3
    """
    with styled():
        columns = max(matrix.shape[1] for matrix in matrices.values())
        width = min(7.4, 3.0 + 2.4 * len(matrices))
        height = 3.3 if is_narrow() else 1.0 + 0.85 * (width - 1) / len(matrices)
        figure, panels = new_figure(len(matrices), width=width, height=height)
        image = None
        for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
            values = 100 * matrix.double()
            image = axes.imshow(values.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=100, interpolation="none")
            plain(axes)
            if columns <= _NUMBERS_UP_TO:
                _write_values(axes, values, size=7.0 if len(matrices) < 3 and not is_narrow() else 5.5)
            _integer_ticks(axes, *values.shape)
            axes.set_xlabel("tested on experience")
            axes.set_title(title)
        label_rows(panels, "after learning experience")
        if image is not None:
            location = "bottom" if is_narrow() else "right"
            bar = figure.colorbar(image, ax=panels, label="accuracy (%)", shrink=0.8, location=location)
            bar.outline.set_visible(False)  # type: ignore[operator]
            bar.solids.set_rasterized(True)  # type: ignore[union-attr]
    return figure


def accuracy_along_stream(
    lines: Mapping[str, tuple[Estimate, Series]], bounds: Mapping[str, tuple[Estimate, Series]]
) -> Figure:
    """Accuracy on the experiences seen so far, after each experience; a band is the 95 % interval over seeds.

    Args:
        lines: by label, estimates of shape (experiences,) and their style.
        bounds: by label, scalar estimates drawn as horizontal lines, such as the joint bound.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> line = Estimate.of(torch.rand(3, 4))
        >>> accuracy_along_stream({"EWC": (line, run_series(0))}, {}).axes[0].get_xlabel()
        'experiences learned'
    """
    with styled():
        figure, (axes,) = new_figure(1, height=3.5)
        length = max(len(seen.mean) for seen, _ in lines.values())
        draw_lines(axes, lines)
        for label, (bound, style) in bounds.items():
            axes.axhspan(100 * float(bound.low), 100 * float(bound.high), color=style.color, alpha=0.12, lw=0)
            axes.axhline(100 * float(bound.mean), color=style.color, ls=style.line, lw=1.4, label=label)
        axes.set_ylim(0, 102)
        axes.set_xlim(0.7, length + 0.3)
        axes.set_xticks(_ticks(length), [str(i) for i in _ticks(length)])
        axes.set_xlabel("experiences learned")
        axes.set_ylabel("accuracy on experiences seen (%)")
        legend_above(figure, axes)
    return figure


def forgetting_by(what: str, labels: Sequence[str], panels: Mapping[str, tuple[Tensor, Tensor, Series]]) -> Figure:
    """For each experience or class: accuracy just after it was learned (hollow), and at the end (filled).

    Args:
        what: ``"experience"`` or ``"class"``.
        labels: names of the experiences or classes.
        panels: by the panel's title, accuracies when learned and at the end, each (labels,), and the style.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> panels = {"EWC": (torch.ones(2), torch.tensor([0.2, 1.0]), run_series(0))}
        >>> forgetting_by("class", ["0", "1"], panels).axes[0].get_xlabel()
        'class'
    """
    with styled():
        figure, axes_row = new_figure(len(panels), height=3.0)
        for axes, (title, (learned, final, style)) in zip(axes_row, panels.items(), strict=True):
            x = range(len(labels))
            axes.vlines(x, 100 * final.numpy(), 100 * learned.numpy(), color=FAINT, lw=1.4)
            axes.plot(
                x,
                100 * learned.numpy(),
                ls="",
                marker=style.marker,
                markerfacecolor=PAPER,
                markeredgecolor=style.color,
                markeredgewidth=1.5,
                markersize=6,
                clip_on=False,
            )
            axes.plot(
                x, 100 * final.numpy(), ls="", marker=style.marker, color=style.color, markersize=6, clip_on=False
            )
            axes.set_ylim(0, 102)
            step = max(1, -(-len(labels) // (13 if is_narrow() else 26 // len(panels))))
            axes.set_xticks(list(x)[::step], list(labels)[::step])
            axes.set_xlabel(what)
            axes.grid(False, axis="x")
            axes.set_title(title)
        label_rows(axes_row, "accuracy (%)")
        hollow = Line2D([], [], ls="", marker="o", markerfacecolor=PAPER, markeredgecolor=INK, markeredgewidth=1.5)
        filled = Line2D([], [], ls="", marker="o", color=INK)
        figure.legend([hollow, filled], ["just after learning", "at the end"], loc="outside upper left", ncols=2)
    return figure


def _write_values(axes: Axes, values: Tensor, *, size: float) -> None:
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            # Light on the dark end of the scale, dark on the bright one.
            axes.text(
                j,
                i,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=size,
                color="#ffffff" if value < 55 else "#0b0b0b",
            )


def _integer_ticks(axes: Axes, rows: int, columns: int) -> None:
    axes.set_xticks([i - 1 for i in _ticks(columns)], [str(i) for i in _ticks(columns)])
    axes.set_yticks([i - 1 for i in _ticks(rows)], [str(i) for i in _ticks(rows)])


def _ticks(count: int) -> list[int]:
    """Positions from 1, thinned out to at most 13."""
    step = -(-count // 13)
    return list(range(1, count + 1, step))


__all__ = ["accuracy_along_stream", "accuracy_matrices", "forgetting_by"]

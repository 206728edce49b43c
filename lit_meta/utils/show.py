"""Matrices of accuracy as pictures, tables of a notebook, and pandas' data frames."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lit_meta.utils.optional import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


def plot_matrix(matrix: Tensor, *, title: str, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draws the accuracy matrix: rows are what has been learned, columns what is tested.

    Args:
        matrix: in [0, 1], NaN where nothing was measured, ``(training experiences, test experiences)``.
        title: of the picture.
        ax: to draw into; None: a new figure.

    Returns:
        Figure and axes, as torchmetrics returns them.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    rows, columns = matrix.shape
    drawn = ax.imshow(matrix.detach().cpu().numpy(), vmin=0, vmax=1, cmap="cividis")
    if rows * columns <= 144:  # Beyond that, numbers overlap.
        for row in range(rows):
            for column in range(columns):
                value = float(matrix[row, column])
                if value == value:
                    shade = "black" if value > 0.6 else "white"
                    ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=shade)
    ax.set(title=title, xlabel="tested experience", ylabel="after experience")
    ax.set_xticks(range(columns), [str(i + 1) for i in range(columns)])
    ax.set_yticks(range(rows), [str(i + 1) for i in range(rows)])
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.colorbar(drawn, ax=ax, label="accuracy")
    return figure, ax


def matrix_frame(matrix: Tensor, initial: Tensor | None = None) -> Any:
    """The accuracy matrix as a `pandas.DataFrame`, a row for each experience learned, a column for each tested.

    Args:
        matrix: ``(training experiences, test experiences)``.
        initial: accuracies before any learning, ``(test experiences,)``, as row 0.

    Raises:
        ValueError: pandas is not installed.
    """
    pandas = needed("pandas", "data", "a data frame")
    values = matrix.detach().cpu().tolist()
    first = 1
    if initial is not None:
        values, first = [initial.detach().cpu().tolist(), *values], 0
    index = pandas.RangeIndex(first, first + len(values), name="after")
    columns = pandas.RangeIndex(1, matrix.shape[1] + 1, name="experience")
    return pandas.DataFrame(values, index=index, columns=columns)


def matrix_html(matrix: Tensor, summary: str, labels: Sequence[str] = ()) -> str:
    """The accuracy matrix as a table of a notebook, in per cent, with a line above it.

    Args:
        matrix: ``(training experiences, test experiences)``.
        summary: the line, plain text.
        labels: what is in each test experience, shown when the pointer rests on its column.
    """
    names = [*labels, *[""] * (matrix.shape[1] - len(labels))]
    heads = "".join(f'<th title="{html.escape(name)}">{i + 1}</th>' for i, name in enumerate(names))
    body = ""
    for row, values in enumerate(matrix.detach().cpu().tolist(), start=1):
        cells = "".join(f"<td>{100 * value:.1f}</td>" if value == value else "<td>–</td>" for value in values)
        body += f"<tr><th>after {row}</th>{cells}</tr>"
    return (
        f"<div><p>{html.escape(summary)}</p><table><thead><tr><th>accuracy (%)</th>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )

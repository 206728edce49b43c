"""Figures of results; each function returns a matplotlib Figure and touches no global state of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def accuracy_matrix(matrix: Sequence[Sequence[float]], title: str) -> Figure:
    """The accuracy matrix: what is known of each test experience after each training experience.

    Args:
        matrix: (training experiences, test experiences) in [0, 1].
        title: above the figure.

    Example:
        >>> accuracy_matrix([[1.0, 0.0], [0.2, 0.9]], "two experiences").axes[0].get_xlabel()
        'test experience'
    """
    values = 100 * np.asarray(matrix, dtype=float)
    rows, columns = values.shape
    figure = Figure(figsize=(1.9 + 0.55 * columns, 1.6 + 0.5 * rows), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for i in range(rows):
        for j in range(columns):
            # White on the dark end of the scale, black on the bright one: readable in grey as well.
            axes.text(
                j,
                i,
                f"{values[i, j]:.0f}",
                ha="center",
                va="center",
                color="white" if values[i, j] < 60 else "black",
            )
    axes.set_xticks(range(columns), [str(j + 1) for j in range(columns)])
    axes.set_yticks(range(rows), [str(i + 1) for i in range(rows)])
    axes.set_xlabel("test experience")
    axes.set_ylabel("after training experience")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="accuracy (%)")
    return figure

"""The animation of the README: accuracy on every class along a stream, from committed results."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from docs.tables.results import DOCS, committed
from lit_meta.report.style import FAINT, Series, learner_series, new_figure, styled

# Row of bars, its learner, and how it is drawn.
EXPERIMENT = "patch-net.recursive-readout_split-digits"
ROWS = {"naive fine-tuning": "naive", "RecursiveReadout": "rule"}
_MILLISECONDS, _HOLD = 700, 3000


def accuracies(folder: Path = DOCS / "results") -> dict[str, list[list[float]]]:
    """By row, the accuracy matrix (training experiences, test experiences), mean over seeds, in [0, 1]."""
    report = committed(folder, EXPERIMENT)
    return {label: report[learner]["accuracy_matrix"] for label, learner in ROWS.items()}


def frame(matrices: dict[str, list[list[float]]], learned: int) -> Figure:
    """The accuracies after some experiences: a bar for each experience, faint for those still to come.

    Args:
        matrices: of `accuracies`.
        learned: how many experiences have been learned, from 1.
    """
    with styled():
        figure, panels = new_figure(1, len(matrices), width=6.0, height=2.9)
        for axes, (label, matrix) in zip(panels, matrices.items(), strict=True):
            style: Series = learner_series(ROWS[label], list(ROWS.values()))
            now = [100 * value for value in matrix[learned - 1]]
            axes.bar(range(1, learned + 1), now[:learned], color=style.color, width=0.8)
            axes.set_xlim(0.4, len(now) + 0.6)
            axes.set_ylim(0, 105)
            axes.set_yticks([0, 50, 100])
            axes.set_xticks(range(1, len(now) + 1))
            axes.grid(False, axis="x")
            mean = sum(now[:learned]) / learned
            axes.set_title(f"{label}: {mean:.1f} % on the {learned} learned" if learned > 1 else label)
            for position in range(learned + 1, len(now) + 1):
                axes.plot(position, 0, marker="_", color=FAINT)
        panels[-1].set_xlabel("experience (one class of digits each), in the order of learning")
        figure.supylabel("accuracy (%)", fontsize=9)
    return figure


def main(file: Path = DOCS / "figures" / "stream.gif") -> None:
    """Draws the animation."""
    matrices = accuracies()
    length = len(next(iter(matrices.values())))
    images = []
    for learned in range(1, length + 1):
        buffer = io.BytesIO()
        frame(matrices, learned).savefig(buffer, format="png", dpi=110, facecolor="white")
        images.append(Image.open(buffer).convert("RGB"))
    # One palette for all, that of the middle, where both rows have bars and faint marks.
    palette = images[length // 2].quantize(64, dither=Image.Dither.NONE)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frames[0].save(
        file,
        save_all=True,
        append_images=frames[1:],
        duration=[_MILLISECONDS] * (length - 1) + [_HOLD],
        loop=0,
    )


if __name__ == "__main__":
    main()

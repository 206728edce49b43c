"""Colours, markers and line styles; figures as files, and as SVG that follows the page's theme.

The colours of series are those of Okabe and Ito (2008), which remain distinct under all common kinds of colour blindness.
Each series also has a marker and a line style of its own, so no figure needs colour to be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from lit_meta.report.runs import Estimate

# name: (light theme, dark theme). The dark variants keep the hue and are bright enough on a dark background.
COLORS = {
    "ink": ("#1b1d22", "#e9eaee"),
    "faint": ("#6b6f78", "#a3a8b3"),
    "grid": ("#dfe1e6", "#3a3e47"),
    "paper": ("#fdfdfd", "#16181d"),
    "blue": ("#0072b2", "#53a9e0"),
    "vermillion": ("#d55e00", "#f2853f"),
    "green": ("#009e73", "#2fc39a"),
    "purple": ("#cc79a7", "#e29fc4"),
    "orange": ("#e69f00", "#f2b632"),
    "sky": ("#56b4e9", "#8fcdf2"),
}
INK, FAINT, GRID, PAPER = (COLORS[name][0] for name in ("ink", "faint", "grid", "paper"))
SEQUENTIAL = "cividis"  # perceptually uniform, and looks the same with red-green colour blindness


@dataclass(frozen=True)
class Series:
    """How one series is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


_STYLES = (
    Series(COLORS["blue"][0], "o", "-"),
    Series(COLORS["vermillion"][0], "s", (0, (5, 2))),
    Series(COLORS["green"][0], "^", (0, (1, 1.2))),
    Series(COLORS["purple"][0], "v", (0, (6, 2, 1, 2))),
    Series(COLORS["orange"][0], "P", (0, (3, 1, 1, 1, 1, 1))),
    Series(COLORS["sky"][0], "X", (0, (8, 3))),
)
_LEARNERS = {"rule": _STYLES[0], "naive": _STYLES[1], "joint": Series(INK, "D", (0, (8, 2, 1, 2)))}


def run_series(index: int) -> Series:
    """The style of the index-th run; styles repeat after six runs."""
    return _STYLES[index % len(_STYLES)]


def learner_series(name: str, names: list[str]) -> Series:
    """The style of a learner among those of its run."""
    if name in _LEARNERS:
        return _LEARNERS[name]
    controls = [other for other in names if other not in _LEARNERS]
    return _STYLES[2 + controls.index(name) % (len(_STYLES) - 2)]


@contextmanager
def styled() -> Iterator[None]:
    """Applies matplotlib settings for the report's figures; the previous settings are restored on exit."""
    settings = {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.0,
        "svg.fonttype": "none",
        "svg.hashsalt": "lit-meta",
        "figure.dpi": 100,
    }
    with mpl.rc_context(settings):
        yield


_NARROW: ContextVar[bool] = ContextVar("narrow", default=False)
_NARROW_WIDTH = 3.6  # Inches; a phone shows this at the size of the letters of its text.


@contextmanager
def narrow_layout() -> Iterator[None]:
    """Within the block, figures are made for a narrow page."""
    token = _NARROW.set(True)
    try:
        yield
    finally:
        _NARROW.reset(token)


def is_narrow() -> bool:
    """Whether figures are made for a narrow page."""
    return _NARROW.get()


def new_figure(columns: int, rows: int = 1, *, width: float = 7.4, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with one or more rows of panels; call it inside `styled`.

    On a narrow page, columns are put below each other, each with its rows.

    Returns:
        The figure, and its axes, row by row.
    """
    if not is_narrow():
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)
    height = min(height, 2.6 * rows) if columns > 1 else height
    figure = Figure(figsize=(_NARROW_WIDTH, height * columns), layout="constrained", facecolor="none")
    axes = figure.subplots(rows * columns, 1, squeeze=False)[:, 0]
    return figure, [axes[column * rows + row] for row in range(rows) for column in range(columns)]


def label_rows(panels: Sequence[Axes], text: str) -> None:
    """Labels the axis of a row of panels: at its left, or at each panel where they are below each other."""
    for axes in panels if is_narrow() else panels[:1]:
        axes.set_ylabel(text)


def legend_columns(most: int) -> int:
    """How many columns a legend has."""
    return 1 if is_narrow() else most


def legend_above(figure: Figure, axes: Axes) -> None:
    """The legend of one panel's lines, above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns(2), handlelength=3.6)


def line_width(position: int, lines: int) -> float:
    """Of one of several lines, from the lowest to the highest: each is thinner than the one below it, which shows beside it."""
    return 3.4 - 1.8 * position / max(1, lines - 1)


def draw_lines(axes: Axes, lines: Mapping[str, tuple[Estimate, Series]]) -> None:
    """Draws lines in per cent with their bands, so that lines which coincide can be told apart.

    Each is thinner than the one below it, which shows between its dashes and at its sides. Long lines have ten markers.

    Args:
        axes: to draw into.
        lines: by label, from the lowest to the highest, estimates of shape (points,) and their style.
    """
    for position, (label, (estimate, style)) in enumerate(lines.items()):
        x = range(1, len(estimate.mean) + 1)
        share = position / max(1, len(lines) - 1)
        low, high, mean = (100 * values.numpy() for values in (estimate.low, estimate.high, estimate.mean))
        axes.fill_between(x, low, high, color=style.color, alpha=0.16, lw=0)
        axes.plot(
            x,
            mean,
            color=style.color,
            marker=style.marker,
            markevery=max(1, len(mean) // 10),
            ls=style.line,
            lw=line_width(position, len(lines)),
            markersize=7.0 - 3.0 * share,
            label=label,
        )


def plain(axes: Axes) -> None:
    """Removes grid and spines from axes that show an image."""
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def save_figure(figure: Figure, folder: Path, name: str, title: str) -> list[Path]:
    """Writes ``name.png`` and ``name.svg`` with a title, on a white background, for use in documents."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with styled():
        _settle(figure)
        width, height = figure.get_size_inches()
        # Above the figure, whose layout leaves no room for it beside a legend.
        text = figure.text(0.01, 1 + 0.1 / height, title, fontsize=11, fontweight="bold", va="bottom")
        whole = Bbox([[0, 0], [width, height + 0.36]])
        figure.savefig(files[0], dpi=150, facecolor="white", bbox_inches=whole)
        figure.savefig(files[1], facecolor="white", bbox_inches=whole, metadata={"Date": None})
        text.remove()
    return files


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an ``<svg>`` element for a page: transparent, in the colours of the page's theme, with a title.

    Every colour of the palette becomes a CSS variable (``var(--blue)``), and every id begins with ``name``, so that one page
    can hold several figures.

    Args:
        figure: created inside `styled`.
        name: of the figure, unique in the page.
        title: read aloud by a screen reader.
    """
    buffer = io.StringIO()
    with styled():
        _settle(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for variable, (light, _) in COLORS.items():
        text = text.replace(light, f"var(--{variable})")
    text = _needed_ids(text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'xlink:href="#{name}-')
    text = text.replace("'DejaVu Sans'", "var(--figure-font)")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-labelledby="{name}-title" viewBox="0 0 {width} {height}" style="max-width:{float(width) * 1.42:.0f}px">'
        f'<title id="{name}-title">{escape(title)}</title>'
    )
    return opening + text[text.index(">") + 1 :].strip()


def _needed_ids(text: str) -> str:
    """Keeps each id that is referred to, once: matplotlib repeats the same definition, and its id, several times."""
    needed = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    def keep(match: re.Match[str]) -> str:
        if match[1] not in needed:
            return ""
        needed.remove(match[1])
        return match[0]

    return re.sub(r' id="([^"]+)"', keep, text)


def _settle(figure: Figure) -> None:
    """Lays the figure out once; otherwise every file repeats the layout, which takes longer than drawing."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def css_variables() -> str:
    """The palette as CSS: light, dark if the reader's system is, and light again in print."""

    def block(which: int) -> str:
        return "".join(f"--{name}:{pair[which]};" for name, pair in COLORS.items())

    return (
        f":root{{color-scheme:light dark;{block(0)}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{block(1)}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{block(0)}}}}}\n"
    )

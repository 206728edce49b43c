"""A figure with its words."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """A figure with its words.

    Attributes:
        name: of its files.
        title: above it.
        caption: how to read it.
        summary: what it shows, for those who cannot see it.
        figure: the figure.
    """

    name: str
    title: str
    caption: str
    summary: str
    figure: Figure

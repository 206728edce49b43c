"""A figure with its title, caption and description."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """A figure with its title, caption and description.

    Attributes:
        name: of its files, without extension.
        title: above the figure.
        caption: how to read the figure.
        summary: what the figure shows, for readers who cannot see it.
        figure: the figure.
    """

    name: str
    title: str
    caption: str
    summary: str
    figure: Figure

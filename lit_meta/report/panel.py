"""A figure with its title, caption and description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from lit_meta.report.style import narrow_layout


@dataclass(frozen=True)
class Panel:
    """A figure with its title, caption and description.

    Attributes:
        name: of its files, without extension.
        title: above the figure.
        caption: how to read the figure.
        summary: what the figure shows, for readers who cannot see it.
        draw: makes the figure.
    """

    name: str
    title: str
    caption: str
    summary: str
    draw: Callable[[], Figure]

    @cached_property
    def figure(self) -> Figure:
        """The figure, without its title."""
        return self.draw()

    def narrow(self) -> Figure:
        """The figure for a page as narrow as a phone: panels below each other, letters as large."""
        with narrow_layout():
            return self.draw()

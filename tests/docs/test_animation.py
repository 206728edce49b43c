"""The animation of the README is drawn from the committed results."""

from __future__ import annotations

import pytest
from PIL import Image

from docs.tables import animation
from docs.tables.results import DOCS


def test_the_file_has_a_frame_for_every_experience_and_is_small():
    file = DOCS / "figures" / "stream.gif"
    matrices = animation.accuracies()
    assert file.stat().st_size < 500_000
    with Image.open(file) as image:
        assert image.n_frames == len(matrices["RecursiveReadout"]) == 10


def test_bars_are_the_accuracies_of_the_results():
    matrices = animation.accuracies()
    drawn = animation.frame(matrices, 7)
    for axes, matrix in zip(drawn.axes, matrices.values(), strict=True):
        heights = [patch.get_height() for patch in axes.patches]
        assert heights == pytest.approx([100 * value for value in matrix[6][:7]])

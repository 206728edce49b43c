"""MathGreek, the symbols on which NACA was published."""

from __future__ import annotations

from pathlib import Path

from lit_meta.data.sources.base import Source, missing
from lit_meta.data.sources.catalog import CATALOG
from lit_meta.data.sources.own.folder import load_folder

_CLASSES = 46


def load_math_greek(root: Path) -> Source:
    """Handwritten mathematical symbols and Greek letters: 46 classes of 45 x 45 pixels, ink = 1.

    Args:
        root: a folder with ``MathGreek/``: one folder of PNG files for each class, directly or below ``train/`` and ``test/``.
            Without such parts, a fixed fifth of every class is the test set.

    Returns:
        Samples of shape ``(1, 45, 45)``.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: there are other than 46 classes, or an image has another size.

    Source:
        Zhang et al., Science Advances 9(34) eadi2947, 2023.
    """
    folder = root / "MathGreek"
    if not folder.is_dir():
        raise missing(
            "MathGreek", folder, f"Ask its authors ({CATALOG['math-greek'].homepage}) and put the folders there"
        )
    source = load_folder(folder, channels=1)
    if len(source.classes) != _CLASSES or source.input_shape != (1, 45, 45):
        raise ValueError(
            f"{folder}: expected {_CLASSES} classes of 45 x 45 pixels, got {len(source.classes)} of "
            f"{source.input_shape[1]} x {source.input_shape[2]}"
        )
    # Dark ink on white paper.
    dark = float(source.train_x.mean()) > 0.5
    train, test = (1 - x if dark else x for x in (source.train_x, source.test_x))
    return Source("math-greek", train, source.train_y, test, source.test_y, source.classes)

"""Omniglot alphabets, as images and as pen strokes over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_meta.data.readers.strokes import read_strokes
from lit_meta.data.sources._cache import cached_tensors, folder_fingerprint
from lit_meta.data.sources.base import Source, missing

_VERSION = 1  # Of the processing below: increase it with every change, so that no cache goes stale.
_CANVAS = 105  # Width and height of the drawings, in pixels.
_FIRST_TEST_DRAWER = 16
# fmt: off
_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)
# fmt: on


def area_weights(source: int, target: int) -> Tensor:
    """The matrix that averages a line of pixels over equal areas, exact even if the sizes do not divide.

    Row i holds how much of each source pixel lies in [i, i + 1) * source / target, divided by the width of
    that interval. Images are averaged by applying it to rows and to columns.

    Args:
        source: number of pixels.
        target: number of pixels of the result, at most ``source``.

    Returns:
        ``(target, source)``; each row sums to 1.

    Raises:
        ValueError: if not 1 <= target <= source.

    Example:
        >>> area_weights(3, 2)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])
    """
    if not 1 <= target <= source:
        raise ValueError(f"expected 1 <= target <= source, got target {target} and source {source}")
    width = source / target
    start = torch.arange(target, dtype=torch.float64)[:, None] * width
    pixel = torch.arange(source, dtype=torch.float64)
    overlap = torch.minimum(start + width, pixel + 1) - torch.maximum(start, pixel)
    return (overlap.clamp(min=0) / width).float()


def stroke_frames(strokes: list[np.ndarray], *, frames: int = 20, size: int = 28) -> Tensor:
    """The events of a moving pen as binary frames over time.

    Only time with the pen down counts: pauses between strokes are left out, since they would give empty
    frames. The pen moves in a straight line from each recorded point to the next; every cell it crosses is 1
    in the frame in which it does. Frames are equal parts of the drawing's own duration.

    Args:
        strokes: arrays ``(points, 3)`` of x, y (pixels of a 105 x 105 canvas) and t (milliseconds).
        frames: number of frames.
        size: width and height of a frame, in cells.

    Returns:
        ``(frames, 1, size, size)``, float32, zeros and ones.

    Example:
        >>> line = np.array([[0.0, 0.0, 0.0], [105.0, 0.0, 100.0]])  # along the top edge at constant speed
        >>> stroke_frames([line], frames=4, size=4)[:, 0, 0]
        tensor([[1., 0., 0., 0.],
                [0., 1., 0., 0.],
                [0., 0., 1., 0.],
                [0., 0., 0., 1.]])
    """
    places, times, clock = [], [], 0.0
    step = 0.25 * _CANVAS / size  # A quarter of a cell: fine enough that no cell on the path is skipped.
    for stroke in strokes:
        time = clock + np.maximum.accumulate(stroke[:, 2] - stroke[0, 2])
        clock = time[-1]
        length = np.hypot(*np.diff(stroke[:, :2], axis=0).T)
        pieces = np.maximum(np.ceil(length / step), 1).astype(int)
        # Positions along the stroke in units of recorded points: `pieces` to each segment, and its end.
        within = np.concatenate([np.arange(n) / n for n in pieces]) if len(pieces) else np.empty(0)
        position = np.append(np.repeat(np.arange(len(pieces)), pieces) + within, len(stroke) - 1)
        index = np.arange(len(stroke))
        places.append(np.stack([np.interp(position, index, stroke[:, axis]) for axis in (1, 0)]))
        times.append(np.interp(position, index, time))
    row, column = np.clip((np.concatenate(places, axis=1) * size / _CANVAS).astype(int), 0, size - 1)
    when = np.concatenate(times) * (frames / clock if clock > 0 else 0.0)
    frame = np.clip(when.astype(int), 0, frames - 1)
    events = torch.zeros(frames, 1, size, size)
    events[torch.from_numpy(frame), 0, torch.from_numpy(row), torch.from_numpy(column)] = 1
    return events


def load_omniglot_latin(root: Path) -> Source:
    """The 26 Latin letters of Omniglot by 20 drawers, of whom 16-20 are the test set; 28 x 28 pixels, ink = 1.

    Args:
        root: a folder with ``omniglot/images/Latin/character{nn}/{id}_{drawer}.png``.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if there are no drawings.
    """
    return _load(root, "omniglot-latin", "images", "Latin", ".png", _read_image, _latin())


def load_omniglot_greek(root: Path) -> Source:
    """The 24 Greek letters of Omniglot by 20 drawers, of whom 16-20 are the test set; 28 x 28 pixels, ink = 1.

    Args:
        root: a folder with ``omniglot/images/Greek/character{nn}/{id}_{drawer}.png``.

    Returns:
        Samples of shape ``(1, 28, 28)``.

    Raises:
        FileNotFoundError: if there are no drawings.
    """
    return _load(root, "omniglot-greek", "images", "Greek", ".png", _read_image, _GREEK)


def load_strokes_latin(root: Path) -> Source:
    """The 26 letters of Omniglot's Latin alphabet as pen events over 20 frames; drawers 16-20 are the test set.

    Args:
        root: a folder with ``omniglot/strokes/Latin/character{nn}/{id}_{drawer}.txt``.

    Returns:
        Samples of shape ``(20, 1, 28, 28)``: time first, then channel, height, width; see `stroke_frames`.

    Raises:
        FileNotFoundError: if there are no drawings.
    """
    return _load(root, "strokes-latin", "strokes", "Latin", ".txt", _read_strokes, _latin())


def load_omniglot(root: Path, alphabet: str = "Latin", strokes: bool = False) -> Source:
    """An alphabet of Omniglot by 20 drawers, of whom 16-20 are the test set: images, or pen strokes over time.

    Args:
        root: a folder with ``omniglot/images/{alphabet}`` (or ``strokes``), ``character{nn}/{id}_{drawer}.png`` (or ``.txt``).
        alphabet: the name of its folder, such as ``"Korean"``.
        strokes: pen events over 20 frames in place of images.

    Returns:
        Samples of shape ``(1, 28, 28)``, ink = 1; with ``strokes`` ``(20, 1, 28, 28)``, see `stroke_frames`.

    Raises:
        FileNotFoundError: there are no drawings of that alphabet.
        ValueError: ``alphabet`` is a path.
    """
    if not alphabet or alphabet.startswith(".") or "/" in alphabet or "\\" in alphabet:
        raise ValueError(f"alphabet must be the name of a folder of Omniglot's, such as 'Korean', got {alphabet!r}")
    kind, suffix = ("strokes", ".txt") if strokes else ("images", ".png")
    read = _read_strokes if strokes else _read_image
    folder = root / "omniglot" / kind / alphabet
    characters = sorted(path.name for path in folder.glob("character*"))
    return _load(root, f"omniglot-{kind}-{alphabet.lower()}", kind, alphabet, suffix, read, tuple(characters))


def _read_strokes(file: Path) -> Tensor:
    return stroke_frames(read_strokes(file))


def _latin() -> tuple[str, ...]:
    return tuple("abcdefghijklmnopqrstuvwxyz")


def _read_image(file: Path) -> Tensor:
    from PIL import Image

    with Image.open(file) as image:
        ink = 1 - torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32)) / 255
    if ink.shape != (_CANVAS, _CANVAS):
        raise ValueError(f"{file}: expected {_CANVAS} x {_CANVAS} pixels, got {tuple(ink.shape)}")
    weights = area_weights(_CANVAS, 28)
    return (weights @ ink @ weights.T)[None].clamp(0, 1)


def _load(
    root: Path,
    name: str,
    kind: str,
    alphabet: str,
    suffix: str,
    read: Callable[[Path], Tensor],
    classes: tuple[str, ...],
) -> Source:
    folder = root / "omniglot" / kind / alphabet
    fingerprint = folder_fingerprint(folder, suffix) if folder.is_dir() else ""
    if not fingerprint:
        raise missing(
            f"Omniglot's {alphabet} alphabet ({kind})",
            folder,
            f"Unpack {kind}_background.zip of https://github.com/brendenlake/omniglot (folder python) and put its "
            f"folder {alphabet} there",
        )

    def build() -> dict[str, Tensor]:
        x, y, drawers = [], [], []
        for file in sorted(folder.glob(f"character*/*{suffix}")):
            x.append(read(file))
            y.append(int(file.parent.name.removeprefix("character")) - 1)
            drawers.append(int(file.stem.rsplit("_", 1)[1]))
        return {"x": torch.stack(x), "y": torch.tensor(y), "drawer": torch.tensor(drawers)}

    tensors = cached_tensors(f"{name}-{_VERSION}-{fingerprint}", build)
    x, y, test = tensors["x"], tensors["y"], tensors["drawer"] >= _FIRST_TEST_DRAWER
    if y.unique().tolist() != list(range(len(classes))):
        raise ValueError(
            f"{folder}: expected the folders character01 to character{len(classes):02d}, got labels for "
            f"{len(y.unique())} of them; download the alphabet again"
        )
    return Source(name, x[~test], y[~test], x[test], y[test], classes)

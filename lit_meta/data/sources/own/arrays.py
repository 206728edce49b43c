"""Arrays and tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lit_meta.data.sources.base import Source
from lit_meta.data.sources.own._checks import TEST, check_scales, existing, labels, own_source, samples
from lit_meta.utils.arguments import located

_NAMES = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: str | Path, *, channels_last: bool = False, test: float = TEST) -> Source:
    """A file of NumPy's with x_train, y_train, x_test and y_test.

    By name: ``npz:PATH``. Bytes are divided by 255, other numbers are left as they are. ``classes``, an array of text,
    names the labels; labels may also be text.

    Args:
        path: the file. Without ``x_test`` and ``y_test``, a fixed share of each class is tested on.
        channels_last: whether samples are (height, width, channels).
        test: that share.

    Returns:
        Samples of shape ``x_train.shape[1:]``; of images without a channel (samples, height, width) ``(1, height, width)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks an array, holds Python objects, or what it holds is not samples and labels.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "mine.npz"
        >>> np.savez(file, x_train=np.zeros((10, 4, 4), np.uint8), y_train=np.arange(10) % 2)
        >>> source = load_npz(file)
        >>> source.input_shape, len(source.train_y), len(source.test_y)
        ((1, 4, 4), 8, 2)
    """
    file = existing(path, "file")
    try:
        with file.open("rb") as opened:
            content = np.load(opened, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array without a name")
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as an .npz file of plain arrays ({error})") from None
    absent = [name for name in _NAMES[:2] if name not in arrays]
    if ("x_test" in arrays) != ("y_test" in arrays):
        absent += [name for name in _NAMES[2:] if name not in arrays]
    if absent:
        raise ValueError(f"{file} lacks {' and '.join(absent)}: expected {', '.join(_NAMES)}, got {', '.join(arrays)}")
    names = [str(name) for name in arrays["classes"].tolist()] if "classes" in arrays else None
    targets = {name: array for name, array in arrays.items() if name.startswith("y_")}
    if names is None and all(array.dtype.kind == "U" for array in targets.values()):
        names = np.unique(targets["y_train"]).tolist()
        unknown = np.setdiff1d(targets.get("y_test", names), names)
        if len(unknown):
            raise ValueError(f"{file}: class {str(unknown[0])!r} has no training samples")
        arrays |= {name: np.searchsorted(names, array) for name, array in targets.items()}
    parts = []
    for part in ("train", "test") if "x_test" in arrays else ("train",):
        x = samples(arrays[f"x_{part}"], f"{file}, x_{part}")
        x = x.movedim(-1, 1).contiguous() if channels_last else x[:, None] if x.dim() == 3 else x
        parts.append((x, labels(arrays[f"y_{part}"], f"{file}, y_{part}", len(x))))
    names_of = [f"x_{part}" for part in ("train", "test")][: len(parts)]
    scaled = dict(zip(names_of, (x for x, _ in parts), strict=True))
    with located(f"{file}: "):
        check_scales({name: arrays[name] for name in names_of}, scaled)
    held_out = parts[1] if len(parts) == 2 else None
    return own_source(file.stem, parts[0], held_out, names, where=str(file), fraction=test)


def from_tensors(
    x_train: Tensor | Any,
    y_train: Tensor | Any,
    x_test: Tensor | Any = None,
    y_test: Tensor | Any = None,
    *,
    name: str = "tensors",
    classes: Sequence[str] | None = None,
    test: float = TEST,
) -> Source:
    """A source of tensors or arrays in memory.

    Args:
        x_train: samples ``(samples, ...)``; bytes are divided by 255, other numbers are left as they are.
        y_train: labels from 0 ``(samples,)``.
        x_test: samples to test on; None takes a fixed share of each class out of the others.
        y_test: their labels.
        name: of the source, in results.
        classes: names of the labels; None: the labels themselves.
        test: that share.

    Raises:
        ValueError: samples and labels that do not fit together, NaN, or a class without samples.

    Example:
        >>> import torch
        >>> source = from_tensors(torch.rand(10, 3), torch.arange(10) % 2, classes=("even", "odd"))
        >>> len(source.train_y), len(source.test_y), source.classes
        (8, 2, ('even', 'odd'))
    """
    if (x_test is None) != (y_test is None):
        raise ValueError("x_test and y_test go together: pass both or neither")
    x = samples(x_train, "x_train")
    train = (x, labels(y_train, "y_train", len(x)))
    held_out = None
    if x_test is not None:
        tested = samples(x_test, "x_test")
        held_out = (tested, labels(y_test, "y_test", len(tested)))
        check_scales({"x_train": x_train, "x_test": x_test}, {"x_train": x, "x_test": tested})
    return own_source(name, train, held_out, classes, where=f"source {name!r}", fraction=test)

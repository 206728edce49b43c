"""Tables: CSV files and pandas' data frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch

from lit_meta.data.sources.base import Source
from lit_meta.data.sources.own._checks import TEST, class_index, existing, own_source, samples
from lit_meta.utils.arguments import nearest
from lit_meta.utils.optional import needed


def load_csv(
    path: str | Path,
    *,
    label: str = "label",
    split: str | None = None,
    shape: Sequence[int] | None = None,
    test: float = TEST,
) -> Source:
    """A CSV file with one sample a row.

    By name: ``csv:PATH``. All columns but those of the label and the split are values of the sample, in their order.
    Names of classes are numbered in alphabetical order.

    Args:
        path: the file, with a header.
        label: the column of the class: numbers or text.
        split: the column that says ``train`` or ``test``; None takes a fixed share of each class for testing.
        shape: of a sample, such as (1, 28, 28); None: (columns,).
        test: that share.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or holds text, a value is missing, or a class has no samples.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "flowers.csv"
        >>> _ = file.write_text("width,length,label\\n" + "1,2,rose\\n" * 5 + "3,4,lily\\n" * 5)
        >>> source = load_csv(file)
        >>> source.classes, source.input_shape, len(source.test_y)
        (('lily', 'rose'), (2,), 2)
    """
    pandas = needed("pandas", "data", "a table")
    file = existing(path, "file")
    try:
        # Only an empty cell is missing: a class may be called NA or None.
        options = {"keep_default_na": False, "na_values": [""]}
        header = pandas.read_csv(file, header=None, nrows=1, dtype=str, **options).iloc[0].tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(file, index_col=False, **options)
    except pandas.errors.ParserWarning:
        raise ValueError(
            f"{file}: its rows have more values than its header has columns, {len(header)}: give every value a column"
        ) from None
    except (ValueError, OSError, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read as CSV ({' '.join(str(error).split())})") from None
    for name in header:
        if not isinstance(name, str):
            raise ValueError(
                f"{file}: a column has no name; name it or, if it numbers the rows, write the file without it "
                "(index=False of pandas)"
            )
    frame.columns = header  # As they are written: pandas numbers those that occur twice.
    return _from_frame(frame, label, split, shape, file.stem, str(file), test)


def from_frame(
    frame: Any,
    *,
    label: str = "label",
    split: str | None = None,
    shape: Sequence[int] | None = None,
    name: str = "table",
    test: float = TEST,
) -> Source:
    """A source of a pandas data frame, one sample a row; see `load_csv`.

    Args:
        frame: `pandas.DataFrame`.
        label: the column of the class.
        split: the column that says ``train`` or ``test``.
        shape: of a sample.
        name: of the source, in results.
        test: the share of each class to test on, without ``split``.

    Raises:
        ValueError: as of `load_csv`.
    """
    return _from_frame(frame, label, split, shape, name, f"the table {name!r}", test)


def _from_frame(
    frame: Any, label: str, split: str | None, shape: Sequence[int] | None, name: str, where: str, test: float
) -> Source:
    columns, label = [str(column) for column in frame.columns], str(label)
    frame = frame.set_axis(columns, axis=1)
    for position, column in enumerate(columns):
        if column in columns[:position]:
            raise ValueError(f"{where} has two columns named {column!r}: rename one or take it out")
    for column in (label, *([split] if split else [])):
        if column not in columns:
            raise ValueError(
                f"{where} has no column {column!r}{nearest(column, columns)} It has {', '.join(columns[:8])}"
            )
    if len(frame) == 0:
        raise ValueError(f"{where} has a header and no rows")
    absent = frame.isna().to_numpy()
    if absent.any():
        row, position = (int(index[0]) for index in absent.nonzero())
        raise ValueError(
            f"{where}: row {row + 1} has no value for {columns[position]!r}: fill it in, or take the row out"
        )
    values = frame.drop(columns=[label, *([split] if split else [])])
    text = [column for column in values.columns if values[column].dtype.kind not in "biuf"]
    for column in text[:1]:
        cells = list(enumerate(values[column].tolist(), 1))
        row, odd = next((cell for cell in cells if not _is_number(cell[1])), cells[0])
        raise ValueError(
            f"{where}: column {column!r} does not hold numbers ({odd!r} in row {row}); encode it or take it out"
        )
    if values.shape[1] == 0:
        raise ValueError(f"{where} holds no values beside {label!r}")
    x = samples(values.to_numpy("float64"), where)
    if shape is not None:
        if prod(shape) != x.shape[1]:
            raise ValueError(f"{where}: {x.shape[1]} columns do not fill the shape {tuple(shape)}")
        x = x.reshape(-1, *shape)
    whole = frame[label].dtype.kind in "iu"
    if whole:
        # Numbers keep their order: 10 comes after 9.
        found = sorted(set(frame[label].tolist()))
        numbers = {value: number for number, value in enumerate(found)}
        y, classes = torch.tensor([numbers[value] for value in frame[label].tolist()]), [str(value) for value in found]
    else:
        y, classes = class_index([str(value) for value in frame[label].tolist()])
    if split is None:
        return own_source(name, (x, y), None, classes, where=where, fraction=test)
    part = [str(value).strip().lower() for value in frame[split].tolist()]
    odd = sorted(set(part) - {"train", "test"})
    if odd:
        raise ValueError(f"{where}: column {split!r} must say train or test, got {odd[0]!r}")
    train = torch.tensor([value == "train" for value in part])
    if train.all() or not train.any():
        raise ValueError(f"{where}: column {split!r} says {part[0]} everywhere; expected both train and test")
    return own_source(name, (x[train], y[train]), (x[~train], y[~train]), classes, where=where)


def _is_number(value: object) -> bool:
    try:
        return isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False

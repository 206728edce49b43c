"""Tensors and text on disk, without pickle: loading an untrusted file must not run code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.utils.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST_YAML = 1_000_000  # Characters; the longest config has 10,000.
_QUICK_YAML = 10_000
_MOST_VALUES = 100_000

# PyTorch is imported where tensors are read or written: a command that only reads a config starts without it.


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors to a safetensors file atomically: a crash leaves the previous file intact."""
    from lit_meta.utils.tensor_file import tensor_file

    write_bytes(path, tensor_file(tensors))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None


def save_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Writes YAML in the order of its keys, atomically."""
    import yaml

    write_bytes(path, yaml.safe_dump(dict(content), sort_keys=False).encode())


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with a stable layout, atomically: a crash leaves the previous file intact."""
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=False, allow_nan=False) + "\n").encode())


def load_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text in UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from None


def load_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    try:
        return _mapping(path, json.loads(load_text(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not whole JSON: {error}") from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    import yaml

    return _mapping(path, parse_yaml(load_text(path), str(path), yaml.safe_load))


def parse_yaml(text: str, where: str, load: Callable[[str], Any]) -> Any:
    """Text read as YAML, where it is of the size and shape of a config or a card.

    A file from a stranger must not cost more than its size: aliases are counted as often as they stand for something, before
    anything is made of them.

    Args:
        text: a YAML document.
        where: what the message calls it.
        load: makes Python objects of the text.

    Raises:
        ValueError: it is not YAML, is larger than any config, gives a key twice, or contains itself.

    Example:
        >>> import yaml
        >>> parse_yaml("{lr: 0.1, lr: 0.2}", "mine.yaml", yaml.safe_load)
        Traceback (most recent call last):
        ...
        ValueError: mine.yaml gives the key 'lr' twice, in line 1: leave one out
    """
    import yaml

    if len(text) > _LONGEST_YAML:
        raise ValueError(f"{where} has {len(text):,} characters, no config or card has more than {_LONGEST_YAML:,}")
    try:
        # libyaml is ten times as fast; what is nested too deep for Python would overflow its stack.
        quick = len(text) <= _QUICK_YAML and yaml.__with_libyaml__
        root = yaml.compose(text, Loader=yaml.CSafeLoader if quick else yaml.SafeLoader)
        if root is not None and _values(root, where, {}) > _MOST_VALUES:
            raise _RefusedYAML(
                f"{where} repeats itself by aliases to more than {_MOST_VALUES:,} values: write them out"
            )
        return load(text)
    except _RefusedYAML as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(f"{where} is nested too deep for a config or a card") from None
    # Its constructors let pass what Python says of a tag that does not fit, such as `!!int many` or the date 2001-99-99.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


class _RefusedYAML(Exception):
    """YAML that may be right, but is no config and no card."""


def _values(node: Any, where: str, known: dict[int, int | None]) -> int:
    """How many values a YAML node stands for, with every alias written out."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise _RefusedYAML(f"{where} contains itself, by an alias in line {node.start_mark.line + 1}")
        return size
    known[id(node)] = None
    size, keys = 1, set()
    for item in node.value if isinstance(node.value, list) else ():
        for part in item if isinstance(item, tuple) else (item,):
            size += _values(part, where, known)
        if isinstance(item, tuple) and isinstance(item[0].value, str):
            key = item[0].value
            if key in keys and key != "<<":
                line = item[0].start_mark.line + 1
                raise _RefusedYAML(f"{where} gives the key {key!r} twice, in line {line}: leave one out")
            keys.add(key)
    known[id(node)] = size
    return size


def _mapping(path: Path, content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} should hold a mapping, it holds {'nothing' if content is None else f'a {type(content).__name__}'}"
        )
    return content


def check_folder(path: Path) -> None:
    """Checks that files can be written to a folder, which need not exist yet.

    Raises:
        ValueError: it or a folder above it is a file, or cannot be written to.
    """
    _check_above(path, next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()))


def check_target(path: Path) -> None:
    """Checks that a file can be written, before the work for its content is done.

    Raises:
        ValueError: the path is a folder, or a folder above it is a file or cannot be written to.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file's name is needed")
    _check_above(path, next(folder for folder in path.absolute().parents if folder.exists()))


def _check_above(path: Path, above: Path) -> None:
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(
            f"{path} cannot be written: {above} is {'read-only' if above.is_dir() else 'a file, not a folder'}"
        )


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""Tensors on disk, without pickle: a file from a stranger must not run code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# PyTorch is imported where tensors are read or written: a command that only reads a config starts without it.


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors to a safetensors file; a crash in the middle leaves the former file whole."""
    from safetensors.torch import save

    # Copies, because two names may share memory, which the format does not allow.
    _write(path, save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}))


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


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with a stable layout; a crash in the middle leaves the former file whole."""
    _write(path, (json.dumps(content, indent=1, sort_keys=False, allow_nan=False) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


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

    try:
        return _mapping(path, yaml.safe_load(load_text(path)))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _mapping(path: Path, content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a mapping, it holds a {type(content).__name__}")
    return content


def check_folder(path: Path) -> None:
    """Holds that files can be written to a folder, which need not be there yet.

    Raises:
        ValueError: it or a folder above it is a file, or cannot be written to.
    """
    _check_above(path, next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()))


def check_target(path: Path) -> None:
    """Holds that a file can be written, before the work is done whose result it is to hold.

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

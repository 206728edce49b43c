"""Files on disk: written whole or not at all, and read back only if they are what was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

Content = bytes | Iterable[bytes | memoryview]
"""What a file is to hold: all of it, or pieces that are asked for one after the other while it is written."""

MANIFEST = "manifest.json"
_PARTIAL = ".partial"


class DamagedError(ValueError):
    """A file is not what was written: a part is missing, or its digest is another."""


def write_bytes(path: Path, content: Content) -> None:
    """Writes a file atomically: whatever happens, it holds the former content or the new one.

    The content goes to a private temporary name and to the disk, then takes the file's name; the folder goes to the disk too.

    Raises:
        OSError: it cannot be written (a full disk, a read-only folder); the former file is intact.
    """
    partial = _partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_to_disk(partial, content)
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        _remove(partial)
        raise _named(error, path) from None


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, see `write_bytes`."""
    write_bytes(path, text.encode())


def write_folder(path: Path, files: Mapping[str, Content]) -> None:
    """Writes a folder of files atomically, with a manifest of their digests; one of that name is replaced.

    Raises:
        OSError: it cannot be written; a folder of that name is intact.
    """
    partial = _partial_name(path)
    try:
        partial.mkdir(parents=True)
        digests = {name: _write_to_disk(partial / name, content) for name, content in files.items()}
        _write_to_disk(partial / MANIFEST, _manifest(digests))
        sync_folder(partial)
        if path.exists():
            former = _partial_name(path)
            path.replace(former)
            partial.replace(path)
            _remove(former)
        else:
            partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        _remove(partial)
        raise _named(error, path) from None


def read_folder(path: Path) -> dict[str, bytes]:
    """The files of a folder that `write_folder` has written.

    Raises:
        DamagedError: a file is missing, or is not what was written.
    """
    try:
        written = (path / MANIFEST).read_bytes()
        names = [str(name) for name in json.loads(written)["files"]]
        if any(Path(name).name != name for name in names):
            raise DamagedError(f"{path / MANIFEST} is damaged")
        files = {name: (path / name).read_bytes() for name in names}
    except FileNotFoundError as error:
        raise DamagedError(f"{error.filename} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{path / MANIFEST} is damaged") from None
    digests = {name: _digest(content) for name, content in files.items()}
    if _manifest(digests) != written:
        known = json.loads(written)["files"]
        changed = [name for name, digest in digests.items() if known[name] != digest]
        raise DamagedError(f"{path / (changed or [MANIFEST])[0]} is damaged: its sha256 is not that of the manifest")
    return files


def remove_partial(folder: Path) -> None:
    """Removes what writes that were killed have left in a folder; its owner calls it, see `lit_meta.utils.locks`."""
    for path in folder.glob(f".*{_PARTIAL}"):
        _remove(path)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows opens no folders.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(digests: Mapping[str, str]) -> bytes:
    whole = _digest(json.dumps(digests).encode())
    return (json.dumps({"files": digests, "sha256": whole}, indent=1) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_to_disk(path: Path, content: Content) -> str:
    """Writes a file, and waits until it is on the disk; returns its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (content,) if isinstance(content, bytes) else content:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # What is left is removed by `remove_partial`; the error that brought us here is told.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _named(error: BaseException, path: Path) -> BaseException:
    """An error of the operating system that names the file that was to be written."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, str(path))
    return error

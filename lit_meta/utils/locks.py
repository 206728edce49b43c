"""One process owns a folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt as _msvcrt
except ImportError:  # Only Windows has it.
    msvcrt: Any = None
else:
    msvcrt = _msvcrt

LOCK = ".lock"
_FAR = 1 << 20  # Windows keeps others from reading what is locked, so a byte behind the owner's name is.
_owned: set[str] = set()  # Locks of this process: the system grants a process what it has already.


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Within the block, this process alone owns a folder; the lock of a process that has died is taken over.

    The folder's ``.lock`` names its owner. Where the file system cannot lock files, the owner's process number decides.

    Args:
        folder: made if it does not exist.

    Raises:
        RuntimeError: another process (or another part of this one) owns it.
        OSError: the folder cannot be written to.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    key = str(path.resolve())
    if key in _owned:
        raise RuntimeError(f"{folder} is in use by this process already: give every run a folder of its own")
    descriptor = _acquire(path, folder)
    _owned.add(key)
    try:
        yield
    finally:
        _owned.discard(key)
        if msvcrt is not None:  # Windows removes no open file.
            os.close(descriptor)
            with suppress(OSError):  # Of another process by now.
                path.unlink(missing_ok=True)
        else:
            # Removed while it is locked, so that nobody owns a file that is no longer there.
            path.unlink(missing_ok=True)
            os.close(descriptor)
        if made:  # What was refused leaves nothing behind.
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path, folder: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _lock(descriptor, path):
                owner = _owner(path)
                raise RuntimeError(
                    f"{folder} is in use by {_described(owner)}: wait until it has ended, or use another folder"
                )
            if not _same_file(descriptor, path):  # Its owner has ended, and removed it, since it was opened.
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _lock(descriptor: int, path: Path) -> bool:
    if fcntl is not None:
        try:
            # Locks of this kind end with their process, and are not inherited by its children.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass  # The file system has no locks.
        else:
            return True
    if msvcrt is not None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    return not _lives(_owner(path))


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _described(owner: dict[str, Any]) -> str:
    if "pid" not in owner:
        return "another process"
    elsewhere = "" if owner.get("host") == socket.gethostname() else f" on {owner.get('host')}"
    return f"process {owner['pid']}{elsewhere}"


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the process that a lock names may still run; on another host nobody can tell."""
    if "pid" not in owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return int(owner["pid"]) != os.getpid()

"""A per-user cache of tensors computed from many small files."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_meta.data.sources.base import cache_folder

_log = logging.getLogger(__name__)


def folder_fingerprint(folder: Path, suffix: str) -> str:
    """A hash of the names, sizes and modification times of a folder's files, without reading any of them.

    Args:
        folder: the folder, searched recursively.
        suffix: ending of the files to include (``".wav"``).

    Returns:
        Sixteen hexadecimal digits; the empty string if there are no files.
    """
    digest = hashlib.sha256()
    files = sorted(folder.rglob(f"*{suffix}"))
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16] if files else ""


def cached_tensors(key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors cached under a key; otherwise builds them, and caches them if the cache folder is writable.

    Args:
        key: a name that changes whenever the tensors would: data set, version of the processing, fingerprint.
        build: computes the tensors.

    Returns:
        The tensors by name.
    """
    file = cache_folder() / "tensors" / f"{key}.safetensors"
    if file.is_file():
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            _log.warning("the cache file %s cannot be read (%s) and is rebuilt", file, error)
    tensors = {name: tensor.contiguous() for name, tensor in build().items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written under a temporary name and then renamed, so that no other process ever sees a partial file.
        descriptor, partial = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        os.close(descriptor)
        try:
            save_file(tensors, partial)
            Path(partial).replace(file)
        finally:
            Path(partial).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        _log.info("the processed data are not cached, since %s cannot be written (%s)", file, error)
    return tensors

"""Downloads of data sets: each file checked by its digest, and one sentence where it cannot be had."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from lit_meta.data.sources.base import missing
from lit_meta.data.sources.catalog import CATALOG, Archive


def fetch(name: str, root: Path, needed: tuple[str, ...], what: str) -> None:
    """Downloads the files of a source that are not there yet.

    A file that is downloaded is compared with its digest before anything reads it. What is unpacked stays beside its archive.

    Args:
        name: of the source, in the catalogue.
        root: the folder of the data sets.
        needed: files or folders below it; where all are there, nothing is done.
        what: the data, in words, for the message.

    Raises:
        FileNotFoundError: a file is missing and cannot be downloaded; the message says what, from where, and where to put it.
    """
    absent = [file for file in needed if not (root / file).exists()]
    if not absent:
        return
    facts = CATALOG[name]
    if not facts.archives:
        raise missing(what, root / absent[0], f"It has to be fetched by hand, see {facts.homepage}")
    for archive in facts.archives:
        try:
            _retrieve(archive, root / archive.folder)
        except Exception as error:  # Of the network, the disk or the digest; the sentence is the same for all.
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise missing(
                what,
                root / absent[0],
                f"Downloading {archive.url} failed ({reason}). Fetch it on a machine with a network, put it into "
                f"{root / archive.folder} {_how_unpacked(archive)}",
            ) from error
    still = [file for file in needed if not (root / file).exists()]
    if still:
        raise missing(what, root / still[0], f"The archives of {facts.homepage} did not hold it: download them again")


def _retrieve(archive: Archive, folder: Path) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    processors: dict[str, Any] = {
        "": None,
        "gz": pooch.Decompress(name=archive.name.removesuffix(".gz")),
        "zip": pooch.Unzip(extract_dir="."),
        "tar": pooch.Untar(extract_dir="."),
    }
    pooch.retrieve(
        archive.url,
        known_hash=archive.digest,
        fname=archive.name,
        path=folder,
        processor=processors[archive.unpack],
        progressbar=sys.stderr.isatty(),
    )


def _how_unpacked(archive: Archive) -> str:
    return "and unpack it there" if archive.unpack else "under the same name"

"""Entries taken out of the zoo: as they are, or in the form of another program."""

from __future__ import annotations

import shutil
from pathlib import Path

from lit_meta.utils.arguments import require_one_of
from lit_meta.zoo.cards import read_card
from lit_meta.zoo.layout import locate

FORMATS = ("safetensors",)


def export(source: str | Path, folder: str | Path, *, format: str = "safetensors") -> Path:
    """Writes an entry to ``folder/name``.

    Args:
        source: as of `lit_meta.zoo.load`.
        folder: that the entry's own folder goes into.
        format: ``"safetensors"``: the entry as it is.

    Returns:
        What was written.

    Raises:
        KeyError: no entry of that name.
        FileExistsError: it is there already.
    """
    require_one_of("format", format, FORMATS)
    files = locate(source)
    target = Path(folder) / read_card(files)["name"]
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    target.mkdir(parents=True)
    for file, path in files.paths.items():
        shutil.copyfile(path, target / file)
    return target

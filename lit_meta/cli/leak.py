"""``lit-meta leak``: the tables and the figure of docs/leak.md, from the committed results."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_meta.cli.console import add_command, console


def add(commands: Any) -> None:
    parser = add_command(
        commands, "leak", leak, "write the tables and the figure of the leak of the published protocol"
    )
    parser.add_argument("page", nargs="?", help="a Markdown page with the markers (default: print the tables)")
    parser.add_argument("--folder", default="docs/results", help="of the JSON files (default: docs/results)")
    parser.add_argument("--figure", metavar="FILE", help="where the figure goes, such as docs/figures/leak.png")


def leak(options: argparse.Namespace) -> dict[str, Any]:
    from lit_meta import leak as made
    from lit_meta import results

    rows = made.rows(Path(options.folder))
    if options.figure is not None:
        path = Path(options.figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the version of matplotlib the file changes only where the results do.
        made.figure(rows).savefig(path, metadata={"Software": None})
    streams = made.streams(Path(options.folder))
    for section, text in (
        ("results", made.table(rows)),
        ("streams", made.streams_table(streams)),
        ("beside", made.beside_table(streams)),
    ):
        if options.page is None:
            console().print(text, soft_wrap=True, markup=False, highlight=False)
        else:
            results.write(Path(options.page), text, section=section)
    return {"rows": [asdict(row) for row in rows], "streams": [asdict(stream) for stream in streams]}

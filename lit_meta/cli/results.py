"""``lit-meta results``: the table of a page, made from the zoo's cards and the committed JSON files."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_meta.cli.console import add_command, console


def add(commands: Any) -> None:
    parser = add_command(commands, "results", results, "write the table of results into a page, or print it")
    parser.add_argument("page", nargs="?", help="a Markdown page with the markers (default: print the table)")
    parser.add_argument(
        "--classification",
        action="store_true",
        help="the table of docs/classification.md: all classes at once, no stream",
    )
    parser.add_argument("--folder", default="docs/results", help="of the JSON files (default: docs/results)")


def results(options: argparse.Namespace) -> dict[str, Any]:
    from lit_meta import classification
    from lit_meta import results as made

    rows: list[Any]
    if options.classification:
        found = classification.rows(Path(options.folder))
        rows, text = [asdict(row) for row in found], classification.table(found)
    else:
        rows = made.found(Path(options.folder))
        text = made.table(rows)
    if options.page is None:
        console().print(text, soft_wrap=True, markup=False, highlight=False)
        return {"rows": rows}
    changed = made.write(Path(options.page), text)
    console().print(f"{options.page}: {len(rows)} results, {'changed' if changed else 'as they were'}", soft_wrap=True)
    return {"rows": rows, "changed": changed}

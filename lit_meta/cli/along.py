"""``lit-meta along``: a figure of accuracy along a stream, from committed results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lit_meta.cli.console import add_command, console


def add(commands: Any) -> None:
    parser = add_command(commands, "along", along, "draw accuracy along a stream, several learners side by side")
    parser.add_argument("figure", metavar="FILE", help="where the figure goes, such as docs/figures/stream.png")
    parser.add_argument(
        "lines", nargs="+", metavar="LABEL=NAME[/LEARNER]", help="results to show; a joint bound is drawn across"
    )
    parser.add_argument("--folder", default="docs/results", help="of the JSON files (default: docs/results)")


def along(options: argparse.Namespace) -> dict[str, Any]:
    from lit_meta import along as made

    found = {}
    for line in options.lines:
        label, equals, name = line.partition("=")
        if not equals or not label or not name:
            raise ValueError(f"a line is LABEL=NAME or LABEL=NAME/LEARNER, got {line!r}")
        found[label] = made.read(Path(options.folder), name)
    path = Path(options.figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib the file changes only where the results do.
    made.figure(found).savefig(path, dpi=150, metadata={"Software": None})
    console().print(f"{path}: {', '.join(found)}", soft_wrap=True, markup=False, highlight=False)
    return {label: values.tolist() for label, values in found.items()}

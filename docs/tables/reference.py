"""The pages of the reference: every public name of every room that users import from, so that none is forgotten."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import lit_meta
from docs.tables.results import DOCS

# Page, title, and the rooms whose public names it documents.
PAGES = {
    "hosts": ("Hosts and streams", ("integrations", "streams", "callbacks")),
    "rules": ("Rules", ("rules",)),
    "networks": ("Networks", ("networks",)),
    "data": ("Data", ("data",)),
    "evaluation": ("Evaluation, metrics and cost", ("evaluation", "metrics", "cost")),
    "experiments": ("Experiments, zoo and reports", ("experiments", "zoo", "report")),
    "extending": ("Extending", ("core", "functional")),
}


def public(room: str) -> Iterator[str]:
    """The full names of a room's public classes and functions, in alphabetical order, each where it is defined.

    Example:
        >>> "lit_meta.rules.ewc.EWC" in public("rules")
        True
    """
    module = importlib.import_module(f"lit_meta.{room}")
    values = [getattr(module, name) for name in getattr(module, "__all__", ())]
    values += [getattr(lit_meta, name) for name in lit_meta.__all__]
    here = {
        value
        for value in values
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(f"lit_meta.{room}.")
    }
    for value in sorted(here, key=lambda value: (value.__qualname__.lower(), value.__qualname__)):
        yield f"{value.__module__}.{value.__qualname__}"


def page(title: str, rooms: tuple[str, ...]) -> str:
    """One page in Markdown, with the directives that mkdocstrings fills from the docstrings."""
    blocks = [f"# {title}"]
    for room in rooms:
        blocks.append(
            f"From `lit_meta.{room}`. {inspect.getdoc(importlib.import_module(f'lit_meta.{room}')) or ''}".strip()
        )
        blocks += [f"::: {name}" for name in public(room)]
    return "\n\n".join(blocks) + "\n"


def main(folder: Path = DOCS / "reference") -> bool:
    """Writes the pages into ``folder``; whether one has changed."""
    folder.mkdir(exist_ok=True)
    changed = False
    for name, (title, rooms) in PAGES.items():
        path, text = folder / f"{name}.md", page(title, rooms)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
            changed = True
    return changed


if __name__ == "__main__":
    main()

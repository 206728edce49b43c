"""``lit-meta zoo``: lists, shows, verifies, exports and adds entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli import errors
from lit_meta.cli.console import console, table
from lit_meta.cli.parsing import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands, "zoo", None, "list, show, verify, export and add trained networks", example="lit-meta zoo list"
    )
    actions = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND", required=True)
    add_command(actions, "list", list_entries, "all entries with their results", example="lit-meta zoo list")
    show = add_command(
        actions, "show", show_entry, "the card of an entry", example="lit-meta zoo show recursive-readout-mnist"
    )
    show.add_argument("name", help="of the entry")
    verify = add_command(
        actions,
        "verify",
        verify_entries,
        "check files and accuracy of one entry or all",
        example="lit-meta zoo verify naca-mlp-digits",
    )
    verify.add_argument("name", nargs="?", help="of the entry (default: all)")
    export = add_command(
        actions, "export", export_entry, "copy an entry to a folder", example="lit-meta zoo export naca-mlp-digits mine"
    )
    export.add_argument("name", help="of the entry")
    export.add_argument("folder", help="the folder that the entry's own folder goes into")
    new = add_command(
        actions, "add", add_entry, "make an entry from a finished run", example="lit-meta zoo add runs/mine"
    )
    new.add_argument("run_dir", help="folder of a finished run")
    new.add_argument("--zoo", help="folder of the zoo (default: the zoo of a checkout, or your own)")


def list_entries(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo
    from lit_meta.experiments.summary import accuracies

    cards, problems = [], {}
    for name in zoo.names():
        try:
            cards.append(zoo.card(name))
        except (ValueError, OSError) as error:  # A damaged card must not hide the other entries.
            problems[name] = str(error)
    rows = [
        (
            card["name"] + ("" if card["protocol"] == "standard" else f" ({card['protocol']})"),
            *accuracies(card["results"]),
        )
        for card in cards
    ]
    caption = (
        "protocol standard unless another is named; naive training on one experience with all classes is joint training"
    )
    table("zoo: average accuracy (%)", ("entry", "rule", "naive", "joint"), rows, caption)
    for problem in problems.values():
        errors.say(problem)
    return {"entries": cards, "problems": problems, "exit_status": int(bool(problems))}


def show_entry(options: Namespace) -> dict[str, Any]:
    from rich.markdown import Markdown

    from lit_meta import zoo

    card = zoo.card(options.name)
    console().print(Markdown(zoo.readme(card)))
    return card


def verify_entries(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    chosen = [options.name] if options.name else zoo.names()
    problems = {name: zoo.verify(name) for name in chosen}
    table(
        "zoo: verified",
        ("entry", "state"),
        [(name, "; ".join(of_entry) or "whole") for name, of_entry in problems.items()],
    )
    return {"problems": problems, "exit_status": int(any(problems.values()))}


def export_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    target = zoo.export(options.name, options.folder)
    console().print(f"{options.name} is in {target}", soft_wrap=True)
    return {"name": options.name, "folder": str(target)}


def add_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    folder = zoo.add(options.run_dir, zoo=Path(options.zoo) if options.zoo else None)
    console().print(f"the entry is in {folder}", soft_wrap=True)
    return {"folder": str(folder)}

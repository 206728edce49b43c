"""``lit-meta zoo``: lists, shows, verifies, exports, makes and shares entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli import errors
from lit_meta.cli.console import console, experiment_progress, progress, table
from lit_meta.cli.parsing import add_command

_SOURCE = "of the entry, its folder, or hf://owner/name@revision"


def add(commands: Any) -> None:
    parser = add_command(
        commands, "zoo", None, "list, show, verify, make and share entries", example="lit-meta zoo list"
    )
    actions = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND", required=True)
    listing = add_command(
        actions, "list", list_entries, "all entries with their results", example="lit-meta zoo list --rule ewc"
    )
    listing.add_argument("--rule", help="only entries that learned by this rule")
    listing.add_argument("--network", help="only entries with this network")
    listing.add_argument("--scenario", help="only entries trained on this scenario, or on these data")
    listing.add_argument("--spiking", action="store_true", help="only spiking networks")
    show = add_command(
        actions, "show", show_entry, "the card of an entry", example="lit-meta zoo show recursive-readout-mnist"
    )
    show.add_argument("name", help=_SOURCE)
    verify = add_command(
        actions,
        "verify",
        verify_entries,
        "measure accuracy, golden outputs, audit and further learning of one entry or all again",
        example="lit-meta zoo verify mlp.naca_split-digits",
    )
    verify.add_argument("name", nargs="?", help=f"{_SOURCE} (default: all)")
    export = add_command(
        actions,
        "export",
        export_entry,
        "write an entry to a folder",
        example="lit-meta zoo export mlp.naca_split-digits mine",
    )
    export.add_argument("name", help=_SOURCE)
    export.add_argument("folder", help="the folder for what is written")
    export.add_argument(
        "--format",
        choices=("safetensors", "torch.export", "onnx", "nir"),
        default="safetensors",
        help="safetensors (default): the entry as it is; the others: its network for another program",
    )
    overview = add_command(
        actions,
        "page",
        write_page,
        "one HTML page on all entries, to sort and filter",
        example="lit-meta zoo page zoo.html",
    )
    overview.add_argument("file", help="the page")
    new = add_command(
        actions, "add", add_entry, "make an entry from a finished run", example="lit-meta zoo add runs/mine"
    )
    new.add_argument("run_dir", help="folder of a finished run")
    new.add_argument("--zoo", help="folder of the zoo (default: the zoo of a checkout, or your own)")
    remake = add_command(
        actions,
        "remake",
        remake_entry,
        "train an entry's experiment, or that of a config, and make the entry of it",
        example="lit-meta zoo remake mlp.ewc_split-digits",
    )
    remake.add_argument("name", help="of an entry or of a config, or a config's file")
    remake.add_argument("--run_dir", help="folder of the run (default: runs/NAME); an interrupted run goes on")
    remake.add_argument("--zoo", help="folder of the zoo (default: the zoo of a checkout, or your own)")
    migrate = add_command(
        actions,
        "migrate",
        migrate_entry,
        "write an entry of an older format in the present one",
        example="lit-meta zoo migrate old/mlp.naca_split-digits",
    )
    migrate.add_argument("name", help=_SOURCE)
    migrate.add_argument("--folder", help="for the new files (default: in place of the old ones)")
    push = add_command(
        actions,
        "push",
        push_entry,
        "upload an entry to the Hugging Face hub",
        example="lit-meta zoo push mlp.ewc_split-digits me/ewc",
    )
    push.add_argument("name", help=_SOURCE)
    push.add_argument("repository", help="owner/name")
    push.add_argument("--private", action="store_true", help="make a new repository that only its owner sees")


def list_entries(options: Namespace) -> dict[str, Any]:
    from lit_meta.experiments.summary import accuracies
    from lit_meta.zoo.cards import card, check_filters, fits
    from lit_meta.zoo.layout import names

    cards, problems = [], {}
    for name in names():
        try:
            cards.append(card(name))
        except (ValueError, OSError) as error:  # A damaged card must not hide the other entries.
            problems[name] = str(error)
    check_filters(cards, rule=options.rule, network=options.network, scenario=options.scenario)
    spiking = True if options.spiking else None
    cards = [
        card
        for card in cards
        if fits(card, rule=options.rule, network=options.network, scenario=options.scenario, spiking=spiking)
    ]
    rows = [
        (
            card["name"] + ("" if card["protocol"] in (None, "standard") else f" ({card['protocol']})"),
            *accuracies(card["results"] or {}),
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
    from lit_meta.utils.io import save_json

    chosen = [options.name] if options.name else zoo.names()
    problems = {}
    with progress(len(chosen), "verifying") as advance:
        for name in chosen:
            problems[name] = zoo.verify(name)
            advance(f"{name}: {'; '.join(problems[name]) or 'whole'}")
            if options.json is not None:  # Every entry is on the disk at once.
                save_json(Path(options.json), {"problems": problems, "unfinished": chosen[len(problems) :]})
    table(
        "zoo: verified",
        ("entry", "state"),
        [(name, "; ".join(of_entry) or "whole") for name, of_entry in problems.items()],
    )
    return {"problems": problems, "exit_status": int(any(problems.values()))}


def export_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    target = zoo.export(options.name, options.folder, format=options.format)
    console().print(f"{options.name} is in {target}", soft_wrap=True)
    return {"name": options.name, "folder": str(target)}


def write_page(options: Namespace) -> dict[str, Any]:
    from lit_meta.utils.files import write_text
    from lit_meta.utils.io import check_target
    from lit_meta.zoo.layout import names
    from lit_meta.zoo.page import page

    file = Path(options.file)
    check_target(file)
    write_text(file, page())
    console().print(f"{len(names())} entries are in {file}", soft_wrap=True)
    return {"file": str(file), "entries": names()}


def add_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    folder = zoo.add(options.run_dir, zoo=Path(options.zoo) if options.zoo else None)
    console().print(f"the entry is in {folder}", soft_wrap=True)
    return {"folder": str(folder)}


def remake_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo
    from lit_meta.experiments.checks import check_specs
    from lit_meta.experiments.loading import load_experiment
    from lit_meta.experiments.run import benchmarks_of
    from lit_meta.zoo.runs import experiment_of

    entry = options.name in zoo.names()
    experiment = experiment_of(zoo.card(options.name)) if entry else load_experiment(options.name)
    # What a card names is registered, which was checked when it was read.
    check_specs(experiment, trusted=not entry)
    run_dir = Path(options.run_dir or Path("runs") / experiment.name)
    benchmarks = benchmarks_of(experiment)
    with experiment_progress(experiment, benchmarks[experiment.seeds[0]], experiment.learners) as told:
        folder = zoo.remake(
            experiment,
            run_dir,
            zoo=Path(options.zoo) if options.zoo else None,
            command=f"lit-meta zoo remake {options.name}",
            on_experience=told,
            benchmarks=benchmarks,
        )
    console().print(f"the entry is in {folder}", soft_wrap=True)
    return {"folder": str(folder), "run_dir": str(run_dir)}


def migrate_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    folder = zoo.migrate(options.name, options.folder)
    console().print(f"the entry is in {folder}", soft_wrap=True)
    return {"folder": str(folder)}


def push_entry(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    address = zoo.push_to_hub(options.name, options.repository, private=options.private)
    console().print(f"{options.name} is at {address}", soft_wrap=True)
    return {"address": address}

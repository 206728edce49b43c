"""The card of an entry, and the page generated from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_meta.experiments.config import is_classification
from lit_meta.experiments.summary import percent
from lit_meta.rules.registry import build_rules
from lit_meta.utils.io import load_yaml
from lit_meta.utils.paths import own_zoo_folder, zoo_folder
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import label
from lit_meta.zoo.checks import CARD, check_card


def names() -> list[str]:
    """The names of all entries: those included in the package, and the user's own.

    Example:
        >>> "naca-mlp-digits" in names()
        True
    """
    return sorted({path.parent.name for folder in _folders() for path in folder.glob(f"*/{CARD}")})


def entry_folder(name: str) -> Path:
    """Where the files of an entry lie; of one that is not there yet, where they would."""
    lying = (folder / name for folder in _folders() if (folder / name / CARD).is_file())
    return next(lying, own_zoo_folder() / name)


def _folders() -> tuple[Path, Path]:
    """The package's zoo comes first, so that no added entry can replace one of its entries."""
    return zoo_folder(), own_zoo_folder()


def card(name: str) -> dict[str, Any]:
    """The description of an entry: network, rule, scenario, protocol, results, sha256 of its files.

    Raises:
        KeyError: no entry of that name; the nearest are named.
        ValueError: the card is damaged, or names what no registry knows; nothing is imported.
    """
    if name not in names():
        raise unknown("zoo entry", name, names())
    return check_card(name, load_yaml(entry_folder(name) / CARD))


def readme(described: Mapping[str, Any]) -> str:
    """The page of an entry, generated from its card."""
    experiment, results = described["experiment"], described["results"]
    rules = build_rules(experiment["rule"], trusted=False)
    length = f"{experiment['scenario'].get('experiences', 'default')} experiences"
    stream = "all classes in one experience" if is_classification(experiment) else length
    lines = [
        f"# {described['name']}",
        "",
        f"`{label(experiment['network'])}` trained by `{rules}` on `{label(experiment['scenario'])}` "
        f"({stream}), protocol `{described['protocol']}`.",
        "",
        "| learner | average accuracy (%) | forgetting (points) |",
        "|---|---|---|",
    ]
    for learner, result in results.items():
        if learner == "seed_average_accuracy":
            continue
        cells = (percent(result[quantity]) for quantity in ("average_accuracy", "forgetting"))
        lines += [f"| {learner} | {' | '.join(cells)} |"]
    lines += [
        "",
        f"Mean ± standard deviation over the seeds {experiment['seeds']}; the weights here are of seed {described['seed']}.",
        *(["", experiment["note"]] if experiment["note"] else []),
        "",
        "Remade by:",
        "",
        f"    {described['command']}",
        f"    lit-meta zoo add {described['command'].split('--run_dir ')[-1].split()[0]}",
        "",
    ]
    return "\n".join(lines)

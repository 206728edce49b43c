"""The matrix of rules, networks and hosts as tables, from the committed verdicts of ``tests/interop``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from docs.tables.results import DOCS, write

# By model, host and rule: "works", "refused: why" or "fails: how".
Verdicts = Mapping[str, Mapping[str, Mapping[str, str]]]
HOSTS = {
    "callback": "`Metaplasticity`, the callback of a Trainer",
    "plugin": "`MetaplasticityPlugin`, of an Avalanche strategy",
    "fit_stream": "`fit_stream`",
    "fabric": "`FabricSession`, in a loop of Lightning Fabric",
}


def committed(path: Path) -> Verdicts:
    """The verdicts that ``tests/interop`` holds the package to.

    Raises:
        FileNotFoundError: there are none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: make it with python -W ignore -m tests.interop.record")
    verdicts: Verdicts = json.loads(path.read_text())
    return verdicts


def _cells(verdicts: Verdicts) -> Iterator[tuple[str, str, str, str]]:
    for model, hosts in verdicts.items():
        for host, cells in hosts.items():
            for rule, text in cells.items():
                yield model, host, rule, text


def reasons(verdicts: Verdicts) -> dict[str, int]:
    """The sentences in which cells are refused, or fail, numbered from 1 in the order of the tables.

    Example:
        >>> reasons({"lstm": {"callback": {"ewc": "works", "naca": "refused: no"}, "fabric": {"naca": "refused: no"}}})
        {'refused: no': 1}
    """
    cells = list(_cells(verdicts))
    ordered = [_plain(text) for host in HOSTS for _, other, _, text in cells if other == host and text != "works"]
    return {text: number for number, text in enumerate(dict.fromkeys(ordered), start=1)}


def table(verdicts: Verdicts, host: str, titles: Mapping[str, str]) -> str:
    """One host's cells as a Markdown table of networks and rules.

    Args:
        verdicts: of all hosts, since the sentences are numbered over all of them.
        host: of the table.
        titles: of the models.
    """
    numbers = reasons(verdicts)
    rules = sorted({rule for _, other, rule, _ in _cells(verdicts) if other == host})
    lines = [f"| network | {' | '.join(f'`{rule}`' for rule in rules)} |", "|---" * (len(rules) + 1) + "|"]
    for model, hosts in verdicts.items():
        if host in hosts:
            cells = [_cell(hosts[host].get(rule), numbers) for rule in rules]
            lines.append(f"| {titles.get(model, model)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(text: str | None, numbers: Mapping[str, int]) -> str:
    if text is None:
        return "–"
    if text == "works":
        return "✓"
    number = numbers[_plain(text)]
    return f"{'' if text.startswith('refused') else '**fails** '}[{number}](#r{number})"


def _plain(text: str) -> str:
    """A sentence with the names of layers as they are in the network, not in the LightningModule around it."""
    return text.replace("'network.", "'")


def counts(verdicts: Verdicts) -> str:
    """How many cells work, are refused and fail, in a sentence."""
    kinds = [text.partition(":")[0] for _, _, _, text in _cells(verdicts)]
    works, refused, fails = (kinds.count(kind) for kind in ("works", "refused", "fails"))
    return f"Of {len(kinds)} cells {works} work, {refused} are refused before a weight has changed, and {fails} fail."


def sentences(verdicts: Verdicts) -> str:
    """The numbered sentences as a list."""
    return "\n".join(
        f'{number}. <a id="r{number}"></a>{text.partition(": ")[2]}' for text, number in reasons(verdicts).items()
    )


def sections(verdicts: Verdicts) -> dict[str, str]:
    """What stands between the markers of the page, by section."""
    from tests.interop.models import MODELS

    titles = {name: model.title for name, model in MODELS.items()}
    tables = "\n\n".join(f"### {title}\n\n{table(verdicts, host, titles)}" for host, title in HOSTS.items())
    return {"counts": counts(verdicts), "tables": tables, "reasons": sentences(verdicts)}


def main(page: Path = DOCS / "interop.md", record: Path = DOCS / "interop.json") -> bool:
    """Writes the tables into their page; returns whether it changed."""
    changed = [write(page, text, section=name) for name, text in sections(committed(record)).items()]
    return any(changed)


if __name__ == "__main__":
    main()

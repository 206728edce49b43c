"""Tables of results, made from the files that hold them; no number in a page is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_meta import zoo
from lit_meta.experiments.config import is_classification
from lit_meta.experiments.summary import accuracies, percent
from lit_meta.rules import build_rule
from lit_meta.utils.io import load_json
from lit_meta.utils.paths import configs_folder
from lit_meta.utils.specs import label

DOCS = Path(__file__).resolve().parent.parent
# Beside every result made with `matmul_precision: medium`.
ROUNDED = "†"
PRECISION_NOTE = (
    f"{ROUNDED} Made with `matmul_precision: medium`: some processors round the factors of float32 products to bfloat16 "
    "then, so that others differ in the fourth digit (1e-4 seen on `split-mnist-task`)."
)


def collect(folder: Path) -> list[dict[str, Any]]:
    """All results on streams: the zoo's cards, and the JSON files in ``folder`` that no card covers.

    Each has ``name, scenario, protocol, seeds`` and, by learner, summaries over seeds.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        report = load_json(path)
        if isinstance(report.get("scenario"), Mapping) and "rule" in report and not is_classification(report):
            rows[report["name"]] = {**report, "zoo": False}
    for name in zoo.names():
        card = zoo.card(name)
        experiment = card["experiment"]
        if is_classification(experiment):
            continue
        shown = {key: experiment[key] for key in ("scenario", "seeds", "matmul_precision") if key in experiment}
        rows[name] = {"name": name, "protocol": card["protocol"], **shown, **card["results"], "zoo": True}
    return sorted(rows.values(), key=lambda row: (label(row["scenario"]), row["protocol"] != "standard", row["name"]))


def mark(report: Mapping[str, Any]) -> str:
    """The mark of a result whose last digits depend on the processor, or nothing."""
    return f" {ROUNDED}" if report.get("matmul_precision", "highest") != "highest" else ""


def with_note(text: str) -> str:
    """A table, and below it what the mark in it means."""
    return f"{text}\n\n{PRECISION_NOTE}" if f" {ROUNDED}" in text else text


def committed(folder: Path, name: str) -> dict[str, Any]:
    """The results of one experiment from its JSON file in ``folder``.

    Raises:
        FileNotFoundError: there are none; the message gives the command that makes them.
        ValueError: the file is damaged.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: make it with lit-meta run {name} --json {path}")
    return load_json(path)


def is_given_tasks(name: str) -> bool:
    """Whether the network is given the task of every test sample, which makes the problem easier.

    Example:
        >>> is_given_tasks("permuted-digits-xdg"), is_given_tasks("mlp.ewc_split-digits")
        (True, False)
    """
    path = configs_folder() / "experiment" / f"{name}.yaml"
    config = yaml.safe_load(path.read_text()) if path.is_file() else {}
    specs = config.get("rule") or []
    rules = [build_rule(spec) for spec in (specs if isinstance(specs, list) else [specs])]
    return config.get("scenario", {}).get("form") == "task" or any(rule.needs_tasks for rule in rules)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Results as a Markdown table of average accuracy in per cent."""
    lines = [
        "| experiment | scenario | protocol | rule | naive | joint | forgetting | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scenario = row["scenario"]
        length = f", {scenario['experiences']} experiences" if "experiences" in scenario else ""
        form = f", {scenario['form']}-incremental" if "form" in scenario else ""
        cells = [
            f"`{row['name']}`, in the zoo" if row["zoo"] else f"[`{row['name']}`](results/{row['name']}.json)",
            f"{scenario['name']}{length}{form}",
            row["protocol"] + (", tasks given" if is_given_tasks(row["name"]) else ""),
            *accuracies(row),
            percent(row["rule"]["forgetting"]),
            len(row["seeds"]),
        ]
        cells[0] = f"{cells[0]}{mark(row)}"
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return with_note("\n".join(lines))


def write(page: Path, text: str, *, section: str = "results") -> bool:
    """Puts a table between the markers of a page's section; returns whether that changed the page.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: the page has no markers of this section, or more than one pair.
    """
    if not page.is_file():
        raise FileNotFoundError(f"there is no page {page}")
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    old = page.read_text()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(end) < old.index(begin):
        raise ValueError(f"{page} needs one line {begin} and after it one line {end}; the table goes between them")
    new = f"{old[: old.index(begin)]}{begin}\n{text}\n{old[old.index(end) :]}"
    page.write_text(new)
    return new != old


def main(page: Path = DOCS / "results.md", folder: Path = DOCS / "results") -> bool:
    """Writes the table into its page; returns whether that changed the page."""
    return write(page, table(collect(folder)))


if __name__ == "__main__":
    main()

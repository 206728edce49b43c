"""One page on all entries, made from their cards: to sort and filter, without a server and without anything from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from lit_meta.experiments.summary import percent
from lit_meta.utils.specs import label
from lit_meta.zoo.cards import read_card, rules_of, scenario_of
from lit_meta.zoo.layout import locate, names

_COLUMNS = (
    ("name", "entry", ""),
    ("accuracy", "accuracy", "%"),
    ("forgetting", "forgetting", "points"),
    ("naive", "naive", "%"),
    ("replay", "replay", "%"),
    ("joint", "joint", "%"),
    ("kept", "old, after more", "%"),
    ("memory", "memory", "KiB"),
    ("energy", "energy", "J"),
    ("size", "files", "KiB"),
    ("rule", "rule", ""),
    ("network", "network", ""),
    ("scenario", "stream", ""),
    ("protocol", "protocol", ""),
    ("parameters", "parameters", ""),
    ("seeds", "seeds", ""),
)
_WORDS = ("rule", "network", "scenario", "protocol")
_FILTERS = (("rule", "Rule"), ("scenario", "Stream"), ("spikes", "Neurons"), ("protocol", "Protocol"))
_UNKNOWN = {"text": "–", "value": ""}


def page(sources: Sequence[str | Path] | None = None) -> str:
    """The page as HTML.

    Args:
        sources: of the entries to show, as of `lit_meta.zoo.load`; None shows all of the zoo.

    Raises:
        KeyError, FileNotFoundError, ValueError: as of `lit_meta.zoo.card`.

    Example:
        >>> "mlp.ewc_split-digits" in page(["mlp.ewc_split-digits"])
        True
    """
    from jinja2 import Environment

    rows = [_row(source) for source in (names() if sources is None else sources)]
    filters = [(key, title, sorted({str(row[key]["text"]) for row in rows})) for key, title in _FILTERS]
    template = files("lit_meta.zoo").joinpath("page.html.j2").read_text(encoding="utf-8")
    # Cards may be a stranger's: everything is escaped.
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(template).render(rows=rows, filters=filters, columns=_COLUMNS, words=_WORDS)


def _row(source: str | Path) -> dict[str, dict[str, Any]]:
    located = locate(source)
    card = read_card(located)
    results: Mapping[str, Any] = card["results"] or {}
    rule = results.get("rule", {})
    cost = rule.get("cost") or {}
    seeds = len(card["experiment"]["seeds"]) if card["experiment"] else 1
    kept = None if card["continuation"] is None else 100 * card["continuation"]["old_after"]
    return {
        # A line may break after the parts of a name, and nowhere else.
        "name": {**_text(card["name"]), "parts": re.split(r"(?<=[._])", card["name"])},
        "network": _text(label(card["network"])),
        "rule": _text(" + ".join(map(label, rules_of(card)))),
        "scenario": _text(scenario_of(card)),
        "protocol": _text(card["protocol"]),
        "spikes": _text("spiking" if card["spiking"] else "artificial"),
        "accuracy": _share(rule.get("average_accuracy")),
        "forgetting": _share(rule.get("forgetting")),
        "naive": _share(results.get("naive", {}).get("average_accuracy")),
        "replay": _share(results.get("replay", {}).get("average_accuracy")),
        "joint": _share(results.get("joint", {}).get("average_accuracy")),
        "kept": _number(kept, 1),
        "memory": _number(_scaled(cost.get("state_bytes"), 1024), 0),
        "energy": _number(cost.get("energy_joules"), 3),
        "size": _number(sum(path.stat().st_size for path in located.paths.values()) / 1024, 0),
        "parameters": _number(card["parameters"], 0),
        "seeds": _number(seeds, 0),
    }


def _text(text: str | None) -> dict[str, Any]:
    return {"text": text, "value": text} if text else _UNKNOWN


def _number(value: float | None, digits: int) -> dict[str, Any]:
    return _UNKNOWN if value is None else {"text": f"{value:,.{digits}f}", "value": value}


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _share(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    return _UNKNOWN if summary is None else {"text": percent(summary), "value": summary["mean"]}

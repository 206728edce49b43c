"""``lit-meta rules`` and ``lit-meta scenarios``: the names that other commands take."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from lit_meta.cli.console import add_command, table


def add(commands: Any) -> None:
    add_command(commands, "rules", rules, "the rules there are")
    add_command(commands, "scenarios", scenarios, "the scenarios there are")


def rules(options: argparse.Namespace) -> dict[str, Any]:
    from lit_meta.rules import RULES

    facts = {
        name: {
            "summary": (inspect.getdoc(rule) or "").splitlines()[0],
            "needs_labels": rule.needs_labels,
            "needs_boundaries": rule.needs_boundaries,
        }
        for name, rule in RULES.items()
    }
    rows = [
        (name, f["summary"], "yes" if f["needs_labels"] else "no", "yes" if f["needs_boundaries"] else "no")
        for name, f in facts.items()
    ]
    table("rules", ("name", "what it is", "needs labels", "needs boundaries"), rows)
    return facts


def scenarios(options: argparse.Namespace) -> dict[str, Any]:
    from lit_meta.data import scenario_names

    table("scenarios", ("name",), [(name,) for name in scenario_names()])
    return {"scenarios": list(scenario_names())}

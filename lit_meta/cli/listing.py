"""``lit-meta rules``, ``networks``, ``sources`` and ``scenarios``: the names that configs and other commands take."""

from __future__ import annotations

import inspect
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import table
from lit_meta.cli.parsing import add_command
from lit_meta.utils.registry import Registry

_OWN = "lit_meta"
_YES_OR_NO = {True: "yes", False: "no", None: "–"}


def add(commands: Any) -> None:
    for function, what in ((rules, "rules"), (networks, "networks"), (sources, "sources"), (scenarios, "scenarios")):
        add_command(
            commands,
            what,
            function,
            f"the {what} there are, and where they come from",
            f"lit-meta {what} --json {what}.json",
        )


def rules(options: Namespace) -> dict[str, Any]:
    from lit_meta.rules.registry import RULES

    facts = _facts(RULES, lambda rule: {"needs_labels": rule.needs_labels, "needs_boundaries": rule.needs_boundaries})
    _show(
        "rules",
        facts,
        {"labels": "needs_labels", "boundaries": "needs_boundaries"},
        "labels, boundaries: what a rule needs",
    )
    return facts


def networks(options: Namespace) -> dict[str, Any]:
    from lit_meta.networks.registry import NETWORKS

    facts = _facts(NETWORKS, lambda network: {})
    _show("networks", facts, {})
    return facts


def sources(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.sources.registry import SOURCES

    facts = _facts(SOURCES, _data)
    _show("sources", facts, {"classes": "classes", "here": "here"}, _where())
    return facts


def scenarios(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.registry import SCENARIOS, scenario_names, scenario_spec
    from lit_meta.data.sources.registry import SOURCES

    own = _facts(SCENARIOS, lambda scenario: {"classes": None, "here": None})
    data = _facts(SOURCES, _data)
    facts = {}
    for name in scenario_names():
        parsed = scenario_spec(name)
        facts[name] = dict(own[parsed.name])
        source = parsed.arguments.get("source")
        if isinstance(source, str) and "problem" not in data[source]:
            # Permuting pixels leaves the classes; a scenario over a source has the source's.
            facts[name] |= {key: data[source][key] for key in ("classes", "here")}
    kinds = "; ".join(f"{name}: {fact['summary'].rstrip('.')}" for name, fact in own.items())
    _show("scenarios", facts, {"classes": "classes", "here": "here"}, f"{_where()}; {kinds}", summary=False)
    return facts


def _facts(registry: Registry[Any], more: Any) -> dict[str, dict[str, Any]]:
    """Of everything in a registry, a line on what it is, and where it comes from."""
    facts: dict[str, dict[str, Any]] = {}
    for name in registry:
        facts[name] = {"summary": "", "origin": registry.origin(name), "foreign": registry.is_foreign(name)}
        try:
            thing = registry[name]
            facts[name] |= {"summary": (inspect.getdoc(thing) or "").split("\n")[0], **more(thing)}
        except Exception as error:  # Of another package; its fault must not hide what works.
            facts[name] |= {"summary": f"cannot be used: {error}", "problem": str(error)}
    return facts


def _data(load: Any) -> dict[str, Any]:
    """The classes of a source, and whether its data are on this machine, where it declares that; nothing is loaded."""
    from lit_meta.data.sources.base import data_root

    files = getattr(load, "files", None)
    here = None if files is None else not files or any((data_root() / file).exists() for file in files)
    return {"classes": getattr(load, "classes", None), "here": here}


def _where() -> str:
    from lit_meta.data.sources.base import data_root

    return f"here: whether the data are in {data_root()}"


def _show(
    title: str,
    facts: dict[str, dict[str, Any]],
    columns: dict[str, str],
    caption: str | None = None,
    *,
    summary: bool = True,
) -> None:
    keys = [*(["summary"] if summary else []), *columns.values()]
    rows = [
        (name, *(_cell(fact.get(key)) for key in keys), fact["origin"] if fact["foreign"] else _OWN)
        for name, fact in facts.items()
    ]
    table(title, ("name", *(["what it is"] if summary else []), *columns, "from"), rows, caption)


def _cell(value: object) -> str:
    return _YES_OR_NO[value] if value is None or isinstance(value, bool) else str(value)

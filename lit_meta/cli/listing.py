"""``lit-meta rules``, ``networks``, ``sources`` and ``scenarios``: the names that configs and other commands take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import table
from lit_meta.cli.parsing import add_command
from lit_meta.utils.paths import data_root
from lit_meta.utils.registry import Registry
from lit_meta.utils.source_text import declaration

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

    needs = ("needs_labels", "needs_boundaries")
    facts = _facts(RULES, dict.fromkeys(needs, False))
    _show(
        "rules",
        facts,
        {"labels": "needs_labels", "boundaries": "needs_boundaries"},
        "labels, boundaries: what a rule needs",
    )
    return facts


def networks(options: Namespace) -> dict[str, Any]:
    from lit_meta.networks.registry import NETWORKS

    facts = _facts(NETWORKS, {})
    _show("networks", facts, {})
    return facts


def sources(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.sources.registry import OWN_DATA, SOURCES

    facts = _facts(SOURCES, {})
    for name, fact in facts.items():
        fact |= _data(SOURCES, name)
    columns = {
        "classes": "classes",
        "train": "train",
        "test": "test",
        "sample": "shape",
        "MB": "megabytes",
        "here": "here",
    }
    sets = {name: fact for name, fact in facts.items() if name not in OWN_DATA}
    caption = f"{_where()}; MB: of the download; --json FILE has licences and homepages"
    _show("sources", sets, columns, caption, summary=False)
    own = {f"{name}:PATH": facts[name] for name in OWN_DATA}
    _show("data of your own", own, {}, "docs/data.md has an example of each")
    return facts


def scenarios(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.registry import SCENARIOS, scenario_names, scenario_spec
    from lit_meta.data.sources.registry import OWN_DATA, SOURCES

    own = _facts(SCENARIOS, {"classes": None, "here": None})
    data = {name: _data(SOURCES, name) for name in SOURCES}
    facts = {}
    for name in scenario_names():
        parsed = scenario_spec(name)
        facts[name] = dict(own[parsed.name])
        source = parsed.arguments.get("source")
        if isinstance(source, str) and data[source]:
            # Every kind of stream leaves the classes; a scenario over a source has the source's.
            facts[name] |= {key: data[source].get(key) for key in ("classes", "train", "test", "here")}
    _show("kinds of scenarios; KIND-SOURCE is one, such as split-digits", own, {})
    sets = {
        name: {**fact, "foreign": SOURCES.is_foreign(name), "origin": SOURCES.origin(name)}
        for name, fact in data.items()
        if name not in OWN_DATA
    }
    columns = {"classes": "classes", "train": "train", "test": "test", "here": "here"}
    _show("sources", sets, columns, f"{_where()}; data of your own: lit-meta sources", summary=False)
    return facts


def _facts(registry: Registry[Any], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of everything in a registry, a line on what it is, where it comes from, and some of its class's values.

    Things of this package are read from their source text, since importing them imports PyTorch.

    Args:
        registry: what is listed.
        values: the class's attributes to tell, with what counts where a class says nothing.
    """
    facts: dict[str, dict[str, Any]] = {}
    for name in registry:
        facts[name] = {"summary": "", "origin": registry.origin(name), "foreign": registry.is_foreign(name)}
        try:
            if registry.is_foreign(name):
                thing = registry[name]
                summary = (inspect.getdoc(thing) or "").split("\n")[0]
                said = {key: getattr(thing, key, default) for key, default in values.items()}
            else:
                written = declaration(registry.origin(name))
                summary = written.summary
                said = {key: written.values.get(key, default) for key, default in values.items()}
            facts[name] |= {"summary": summary, **said}
        except Exception as error:  # Of another package; its fault must not hide what works.
            facts[name] |= {"summary": f"cannot be used: {error}", "problem": str(error)}
    return facts


def _data(registry: Registry[Any], name: str) -> dict[str, Any]:
    """What is known of a source without reading it, and whether its data are on this machine."""
    from lit_meta.data.sources.catalog import facts_of

    try:
        facts = facts_of(registry, name)
    except Exception:  # Of another package: the list of sources says what is wrong with it.
        return {}
    if facts is None:
        return {"classes": None, "here": None}
    here = not facts.files or any((data_root() / file).exists() for file in facts.files)
    shape = "×".join(map(str, facts.shape)) if facts.shape else None
    digests = [archive.digest for archive in facts.archives]
    keys = ("classes", "train", "test", "licence", "licence_stated_at", "homepage", "megabytes", "extra")
    known = {key: getattr(facts, key) for key in keys}
    return {**known, "shape": shape, "digests": digests, "here": here}


def _where() -> str:
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
    # Where everything is ours, there is nothing to tell apart.
    foreign = any(fact["foreign"] for fact in facts.values())
    rows = [
        (
            name,
            *(_cell(fact.get(key)) for key in keys),
            *([fact["origin"] if fact["foreign"] else _OWN] if foreign else []),
        )
        for name, fact in facts.items()
    ]
    heads = ("name", *(["what it is"] if summary else []), *columns, *(["from"] if foreign else []))
    table(title, heads, rows, caption)


def _cell(value: object) -> str:
    return (
        _YES_OR_NO[value]
        if value is None or isinstance(value, bool)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )

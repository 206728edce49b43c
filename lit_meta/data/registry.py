"""The registry of scenarios; other packages add theirs through the entry-point group ``lit_meta.scenarios``.

A scenario is a function that returns a benchmark. Those of this package take any source, so that ``split-NAME``,
``online-NAME`` and so on are scenarios for every registered source, including those of other packages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lit_meta.data.sources.registry import OWN_DATA, SOURCES, source_names
from lit_meta.utils.registry import Registry, unknown
from lit_meta.utils.specs import Spec, Specification

SCENARIOS: Registry[Callable[..., Any]] = Registry(
    "scenario",
    {
        "blurry": "lit_meta.data.class_streams:blurry",
        "corrupted": "lit_meta.data.domain_streams:corrupted",
        "gradual": "lit_meta.data.domain_streams:gradual",
        "online": "lit_meta.data.boundary_free:online",
        "permuted": "lit_meta.data.scenarios:permuted",
        "repeated": "lit_meta.data.class_streams:repeated",
        "rotated": "lit_meta.data.domain_streams:rotated",
        "split": "lit_meta.data.scenarios:split",
        "unbounded": "lit_meta.data.boundary_free:unbounded",
        "unequal": "lit_meta.data.class_streams:unequal",
    },
    group="lit_meta.scenarios",
    listed_by="lit-meta scenarios",
)


def scenario_names() -> tuple[str, ...]:
    """The names of the scenarios, in alphabetical order: the registered ones, and those over each source."""
    over_sources = {
        f"{form}-{source}" for form in SCENARIOS if not SCENARIOS.is_foreign(form) for source in source_names()
    }
    return tuple(sorted({*SCENARIOS, *over_sources}))


def scenario_spec(spec: Specification) -> Spec:
    """A scenario's spec with ``split-NAME`` resolved into the scenario and its source.

    Raises:
        KeyError: an unknown scenario; the nearest are named.
        TypeError: another form.

    Example:
        >>> scenario_spec("split-digits").to_dict()
        {'name': 'split', 'source': 'digits'}
        >>> scenario_spec("split-folder:photos").to_dict()
        {'name': 'split', 'source': {'name': 'folder', 'path': 'photos'}}
    """
    parsed = Spec.parse(spec, SCENARIOS.kind)
    if parsed.class_path or parsed.name in SCENARIOS:
        return parsed
    form, _, source = parsed.name.partition("-")
    if form not in SCENARIOS or SCENARIOS.is_foreign(form) or not source:
        raise unknown(SCENARIOS.kind, parsed.name, scenario_names(), listed_by=SCENARIOS.listed_by)
    if source not in SOURCES:
        over_sources = [f"{form}-{known}" for known in source_names()]
        raise unknown(SCENARIOS.kind, parsed.name, over_sources, listed_by=SOURCES.listed_by)
    if "source" in parsed.arguments:
        raise TypeError(f"scenario {parsed.name!r} names its source: leave out source={parsed.arguments['source']!r}")
    arguments = dict(parsed.arguments)
    if source in OWN_DATA:
        if "path" not in arguments:
            raise TypeError(
                f"scenario {parsed.name!r} needs a path: {parsed.name}:PATH, or source={{name: {source}, path: ...}}"
            )
        return Spec(name=form, arguments={"source": {"name": source, "path": arguments.pop("path")}, **arguments})
    return Spec(name=form, arguments={"source": source, **arguments})

"""JSON Schema of the config files, so that an editor completes names and marks what would be refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from lit_meta.data.registry import SCENARIOS, scenario_names, scenario_spec
from lit_meta.experiments.config import LEARNERS, Experiment, Override
from lit_meta.experiments.sweep_config import TUNABLE, Sweep
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.optimizers import OPTIMIZERS
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.annotations import annotations_of, json_schema

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def experiment_schema() -> Schema:
    """The schema of a file in ``configs/experiment/``, with the names that are registered now as choices.

    Example:
        >>> sorted(experiment_schema()["required"])
        ['name', 'network', 'scenario']
    """
    specs = {
        "network": _ref("network"),
        "rule": {"anyOf": [_ref("rule"), {"type": "array", "items": _ref("rule")}, {"type": "null"}]},
        "optimizer": _ref("optimizer"),
        "loss": {"enum": sorted(LOSSES)},
    }
    # What differs for a learner may be some arguments of the network alone.
    arguments = sorted({name for target in NETWORKS.values() for name in inspect.signature(target).parameters})
    some = {"type": "object", "propertyNames": {"enum": arguments}}
    override = _object(
        {**_properties(Override), **specs, "network": {"anyOf": [_ref("network"), some, {"type": "null"}]}}, needed=[]
    )
    by_learner = {"type": "object", "additionalProperties": {"$ref": "#/$defs/override"}}
    properties = {
        **_properties(Experiment),
        **specs,
        "scenario": _ref("scenario"),
        "overrides": {**by_learner, "propertyNames": {"enum": list(LEARNERS)}},
        "controls": {
            **by_learner,
            "propertyNames": {"pattern": "^[^\\W_]+(-[^\\W_]+)*$", "not": {"enum": list(LEARNERS)}},
        },
        "seeds": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "uniqueItems": True},
    }
    return {
        "$schema": _DIALECT,
        "title": "lit_meta experiment",
        **_object(properties, needed=_needed(Experiment)),
        "$defs": {
            "network": _spec(NETWORKS),
            "rule": _spec(RULES),
            "optimizer": _spec(OPTIMIZERS, left_out=("params",)),
            "scenario": _scenario(),
            "override": override,
        },
    }


def sweep_schema() -> Schema:
    """The schema of a file in ``configs/sweep/``.

    Example:
        >>> sorted(sweep_schema()["required"])
        ['experiences', 'experiment', 'space']
    """
    number = {"type": "number"}
    spread = _object({"low": number, "high": number, "log": {"type": "boolean"}}, needed=["low", "high"])
    choices = _object({"choices": {"type": "array", "minItems": 1}}, needed=["choices"])
    path = f"^({'|'.join(TUNABLE)})(\\..+)?$"
    properties = {
        **_properties(Sweep),
        "experiment": {"type": "string"},
        "space": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {path: {"anyOf": [spread, choices]}},
            "additionalProperties": False,
        },
    }
    return {"$schema": _DIALECT, "title": "lit_meta sweep", **_object(properties, needed=_needed(Sweep))}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(properties: Mapping[str, Schema], *, needed: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": needed, "additionalProperties": False}


def _properties(cls: type) -> dict[str, Schema]:
    return {name: json_schema(annotation) or {} for name, annotation in annotations_of(cls).items()}


def _needed(cls: type) -> list[str]:
    return [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]


def _spec(registry: Mapping[str, Callable[..., Any]], left_out: tuple[str, ...] = ()) -> Schema:
    """The three forms of a spec."""
    return _forms({name: _named(name, target, left_out) for name, target in registry.items()})


def _scenario() -> Schema:
    named = {}
    for name in scenario_names():
        parsed = scenario_spec(name)
        named[name] = _named(name, SCENARIOS[parsed.name], tuple(parsed.arguments))
    return _forms(named)


def _forms(named: Mapping[str, Schema]) -> Schema:
    path = {"type": "string", "pattern": "\\."}
    by_path = _object({"class_path": path, "init_args": {"type": ["object", "null"]}}, needed=["class_path"])
    return {"anyOf": [{"enum": list(named)}, path, *named.values(), by_path]}


def _named(name: str, target: Callable[..., Any], left_out: tuple[str, ...]) -> Schema:
    """A mapping with a name, and the arguments of what has that name."""
    annotations = annotations_of(target)
    properties: dict[str, Schema] = {"name": {"const": name}}
    needed, open_ended = ["name"], False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        if parameter.name in left_out or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        properties[parameter.name] = json_schema(annotations.get(parameter.name, object)) or {}
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
    return {**_object(properties, needed=needed), **({"additionalProperties": True} if open_ended else {})}

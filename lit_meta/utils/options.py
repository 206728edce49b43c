"""Constructors whose options come in groups: a dataclass for each, instead of a dozen arguments that are passed on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from lit_meta.utils.annotations import Options, annotations_of
from lit_meta.utils.arguments import nearest
from lit_meta.utils.specs import check_arguments

F = TypeVar("F", bound=Callable[..., Any])


def grouped(**prefixes: str) -> Callable[[F], F]:
    """Decorates a constructor, so that each of its groups of options can be written in four ways.

    A group is an argument whose default is an instance of `Options`. Callers give that instance in full, a mapping of the
    fields that differ from the default (as in YAML), its field ``name`` alone, or each field as an argument of its own,
    called by a prefix and the field's name. The constructor itself gets an instance whichever way was taken, and nothing
    in its ``**flat``, which is there for type checkers. The signature lists groups and flat names; a value that is the
    default states nothing, since parsers such as LightningCLI's fill in the defaults of both.

    Args:
        **prefixes: by group, what stands before a field in its flat name.

    Raises:
        TypeError: by the constructor, for an argument that neither it nor a group has (the nearest is named), a group that
            is something else, or a field that is given twice, with different values.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Clock(Options):
        ...     steps: int = 20
        >>> @grouped(clock="")
        ... def network(size: int, *, clock: Clock = Clock(), **flat: Any): return size, clock
        >>> network(3, steps=5) == network(3, clock={"steps": 5}) == network(3, clock=Clock(steps=5))
        True
    """

    def decorate(constructor: F) -> F:
        own = inspect.signature(constructor).parameters.values()
        signature = inspect.Signature([p for p in own if p.kind is not p.VAR_KEYWORD])
        parameters, annotations = dict(signature.parameters), annotations_of(constructor)
        places: dict[str, tuple[str, str]] = {}  # By flat name, its group and field.
        for group, prefix in prefixes.items():
            default = parameters[group].default
            for field, annotation in annotations_of(type(default)).items():
                if field != "name":  # Its flat name is that of the group.
                    name = prefix + field
                    places[name], annotations[name] = (group, field), annotation
                    parameters[name] = inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=getattr(default, field)
                    )

        @functools.wraps(constructor)
        def construct(*positional: Any, **arguments: Any) -> Any:
            changes: dict[str, dict[str, Any]] = {group: {} for group in prefixes}
            for name in sorted(arguments.keys() - signature.parameters.keys()):
                if name not in places:
                    raise TypeError(f"{constructor.__qualname__} has no argument {name!r}{nearest(name, parameters)}")
                group, field = places[name]
                changes[group][field] = arguments.pop(name)
            bound = signature.bind_partial(*positional, **arguments)
            for group in prefixes:
                given, default = bound.arguments.get(group, {}), parameters[group].default
                bound.arguments[group] = _options(group, default, given, changes[group])
            return constructor(*bound.args, **bound.kwargs)

        construct.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        construct.__annotations__ = annotations
        return cast(F, construct)

    return decorate


def _options(group: str, default: Options, given: object, changes: Mapping[str, Any]) -> Options:
    kind = type(default)
    if isinstance(given, str) and hasattr(default, "name"):
        given = {"name": given}
    if not isinstance(given, (Mapping, kind)):
        raise TypeError(f"{group} must be {kind.__name__}, or a mapping of its fields, got {given!r}")
    stated: Mapping[str, Any] = given if isinstance(given, Mapping) else vars(given)
    check_arguments(kind, stated, group)
    usual = vars(default)
    stated = {field: value for field, value in stated.items() if field not in changes or value != usual[field]}
    for field in stated.keys() & changes.keys():
        if changes[field] not in (usual[field], stated[field]):
            values = f"{field}={stated[field]!r} and beside it {changes[field]!r}"
            raise TypeError(f"{group} is given {values}: leave one of them out")
    return kind(**{**usual, **changes, **stated})

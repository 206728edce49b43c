"""What the type annotations of a class or function say about arguments that come from a YAML file.

Values are checked, never converted: what a config holds is what the class gets.
"""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from numbers import Integral, Number, Real
from typing import Any, Literal, Union, get_args, get_origin

_NONE = type(None)


class Options:
    """Base of the frozen dataclasses that a YAML file writes as mappings; see `lit_meta.utils.options`."""


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    _NONE: "null",
    complex: "a number",
}
_SCHEMAS = {int: "integer", float: "number", complex: "number", bool: "boolean", str: "string", _NONE: "null"}


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a class's or function's arguments; those that cannot be evaluated are left out.

    Example:
        >>> def scenario(length: "int", other: "Unknown" = None): ...
        >>> annotations_of(scenario)
        {'length': <class 'int'>}
    """
    try:
        return dict(_evaluated(target))
    except TypeError:  # What cannot be hashed.
        return dict(_evaluated.__wrapped__(target))


@lru_cache(maxsize=512)
def _evaluated(target: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(target, type):
        target = target.__init__  # type: ignore[misc]
    # What has a signature of its own has the annotations to it.
    function: Any = inspect.unwrap(target, stop=lambda f: hasattr(f, "__signature__"))
    written = dict(getattr(function, "__annotations__", {}))
    written.pop("return", None)
    evaluated = {}
    for name, annotation in written.items():
        # One by one: a name that only type checkers import must not hide the other arguments.
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        try:
            evaluated[name] = typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}))[name]
        except Exception:
            continue
    return evaluated


def options_in(annotation: Any) -> type[Options] | None:
    """The kind of `Options` that an annotation allows, alone or among others."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)), None)


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is of the type that an annotation asks for; what an annotation leaves open fits.

    Integers fit where a number is asked for, and lists where any sequence is, since YAML has no tuples. Which texts are
    allowed is left to the one who takes them, who can name the nearest.

    Args:
        value: from a config.
        annotation: evaluated, as `annotations_of` gives it.

    Example:
        >>> fits(1, float), fits("no", bool), fits([1, 2], tuple[int, ...]), fits({}, "Sequence")
        (True, False, True, True)
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, _NONE):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments or any(isinstance(value, str) and isinstance(option, str) for option in arguments)
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object or hasattr(value, "dtype"):
        return True  # Open, or a number of NumPy or PyTorch, which no YAML file holds.
    if kind in (int, float, complex):
        number = {int: Integral, float: Real, complex: Number}[kind]
        return isinstance(value, number) and not isinstance(value, bool)
    if issubclass(kind, os.PathLike):
        return isinstance(value, (str, os.PathLike))
    if kind is type:
        return isinstance(value, type)
    if _is_sequence(kind):
        return _items_fit(value, kind, arguments)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items() if len(arguments) == 2
        )
    try:
        return isinstance(value, kind)
    except TypeError:  # A protocol that cannot be asked.
        return True


def _items_fit(value: object, kind: type, arguments: tuple[Any, ...]) -> bool:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return False
    if not arguments or not isinstance(value, (list, tuple)):
        return True
    if kind is tuple and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return all(fits(item, arguments[0]) for item in value)


def _is_sequence(kind: type) -> bool:
    return (
        issubclass(kind, Iterable)
        and not issubclass(kind, (str, bytes, Mapping))
        and hasattr(kind, "__class_getitem__")
    )


def described(annotation: Any) -> str:
    """An annotation in words, for an error message.

    Example:
        >>> from collections.abc import Sequence
        >>> described(Sequence[int] | None), described(Literal["a", "b"])
        ('a list of whole numbers or null', "'a' or 'b'")
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation in _WORDS:
        return _WORDS[annotation or _NONE]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(described(option) for option in arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return "a path"
    if isinstance(kind, type) and _is_sequence(kind):
        of = {int: " of whole numbers", float: " of numbers", str: " of texts", bool: " of true or false"}
        return f"a list{of.get(arguments[0], '') if arguments else ''}"
    if isinstance(kind, type) and issubclass(kind, (Mapping, Options)):
        return "a mapping"
    return getattr(kind, "__name__", str(kind))


def json_schema(annotation: Any) -> dict[str, Any] | None:
    """What an annotation allows in a YAML file, as JSON Schema; None for what no YAML file can hold.

    Example:
        >>> json_schema(int | None)
        {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
        >>> json_schema(Literal["a", "b"])
        {'enum': ['a', 'b']}
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation in _SCHEMAS:
        return {"type": _SCHEMAS[annotation or _NONE]}
    if origin in (Union, types.UnionType):
        options = [option for option in map(json_schema, arguments) if option is not None]
        return None if not options else options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is typing.Annotated:
        return json_schema(arguments[0])
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object:
        return {}
    if issubclass(kind, os.PathLike):
        return {"type": "string"}
    if issubclass(kind, Options):
        properties = {name: json_schema(field) for name, field in annotations_of(kind).items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if _is_sequence(kind):
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            items = [json_schema(item) or {} for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": (json_schema(arguments[0]) or {}) if arguments else {}}
    if issubclass(kind, Mapping):
        values = json_schema(arguments[1]) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values or True}
    return None

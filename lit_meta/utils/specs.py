"""One language for everything that a config, a card or a call can name.

A spec is a name (``"ewc"``), a mapping with a name (``{"name": "ewc", "strength": 50}``), or a class path as LightningCLI
writes it (``{"class_path": "my_package.MyRule", "init_args": {...}}``). ``"folder:photos"`` is short for
``{"name": "folder", "path": "photos"}``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from lit_meta.utils.annotations import annotations_of, described, fits, options_in
from lit_meta.utils.arguments import nearest
from lit_meta.utils.registry import Registry

Specification = str | Mapping[str, Any]

# Whether what is being built was named by a file. A scenario builds its source from a spec within its own: that is no more to
# be trusted than what it stands in.
_FROM_A_FILE: ContextVar[bool] = ContextVar("from_a_file", default=False)


def from_a_file() -> bool:
    """Whether what is being built now was named by a file of results, so that nothing may be fetched or imported for it."""
    return _FROM_A_FILE.get()


@dataclass(frozen=True)
class Spec:
    """A thing to build: where it is found, and the arguments it is built with.

    Attributes:
        name: in a registry; empty where a class path is given.
        class_path: ``"module.Class"``; empty where a name is given.
        arguments: keyword arguments.
    """

    name: str = ""
    class_path: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: Specification, kind: str) -> Spec:
        """Reads one of the three forms.

        Args:
            value: the spec.
            kind: what it is of, in the singular, for error messages.

        Raises:
            TypeError: another form.
            ValueError: a key that has no meaning beside the others, which would otherwise be ignored.

        Example:
            >>> Spec.parse("folder:my/photos", "source").to_dict()
            {'name': 'folder', 'path': 'my/photos'}
            >>> Spec.parse({"name": "ewc", "strength": 50}, "rule").arguments
            {'strength': 50}
            >>> Spec.parse({"class_path": "torch.optim.SGD", "lr": 0.1}, "optimizer")
            Traceback (most recent call last):
            ...
            ValueError: optimizer: 'lr' has no meaning beside class_path: arguments go into init_args
        """
        if isinstance(value, str):
            name, colon, path = value.partition(":")
            if colon and "." not in name:
                return cls(name=name, arguments={"path": _text(path, f"{kind} {name!r}: path")})
            return cls(class_path=value) if "." in value else cls(name=value)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError(
                f"{kind} must be a name, a mapping with a name, or {{class_path: ..., init_args: ...}}, got {value!r}"
            )
        if "class_path" in value:
            beside = sorted(value.keys() - {"class_path", "init_args"})
            if beside:
                raise ValueError(f"{kind}: {beside[0]!r} has no meaning beside class_path: arguments go into init_args")
            arguments = value.get("init_args") or {}
            if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
                raise TypeError(f"{kind}: init_args must be a mapping of arguments, got {arguments!r}")
            return cls(class_path=_text(value["class_path"], f"{kind}: class_path"), arguments=dict(arguments))
        if "name" not in value:
            raise ValueError(f"{kind} needs a name or a class_path, got {dict(value)!r}")
        return cls(
            name=_text(value["name"], f"{kind}: name"), arguments={k: v for k, v in value.items() if k != "name"}
        )

    def to_dict(self) -> dict[str, Any]:
        """The mapping form, which YAML files and cards hold.

        Example:
            >>> Spec(name="ewc").to_dict(), Spec(class_path="a.B", arguments={"c": 1}).to_dict()
            ({'name': 'ewc'}, {'class_path': 'a.B', 'init_args': {'c': 1}})
        """
        if self.class_path:
            return {"class_path": self.class_path, "init_args": dict(self.arguments)}
        return {"name": self.name, **self.arguments}

    def resolve(self, registry: Registry[Any], *, trusted: bool) -> Callable[..., Any]:
        """What the spec names.

        Args:
            registry: of its kind.
            trusted: whether the spec is the user's own. Only then is a class path imported that the registry does not know;
                one that came in a file of results is refused without importing anything.

        Raises:
            KeyError: an unknown name.
            ValueError: a class path that leads nowhere, or, in what is not trusted, one that the registry does not know.
        """
        if not self.class_path:
            return registry[self.name]
        name = registry.named(self.class_path)
        if name is not None:
            return registry[name]
        if not trusted or _FROM_A_FILE.get():
            self.require_registered(registry)
        return _imported(self.class_path, registry.kind)

    def require_registered(self, registry: Registry[Any]) -> None:
        """Checks that a class path is that of something registered; imports nothing.

        Raises:
            ValueError: it is not.
        """
        if self.class_path and registry.named(self.class_path) is None:
            raise ValueError(
                f"{registry.kind} {self.class_path!r} is not a registered {registry.kind}, and what a file names is not "
                f"imported: install the package that registers it, or build the {registry.kind} yourself"
            )


def label(spec: Specification) -> str:
    """How tables call what a spec names.

    Example:
        >>> label({"name": "ewc"}), label({"class_path": "my_package.rules.MyRule", "init_args": {}})
        ('ewc', 'MyRule')
    """
    parsed = Spec.parse(spec, "spec")
    return parsed.name or parsed.class_path.rpartition(".")[2]


def normalized(value: Specification, kind: str) -> dict[str, Any]:
    """A spec in its mapping form, so that two ways of writing it are equal.

    Example:
        >>> normalized("ewc", "rule")
        {'name': 'ewc'}
    """
    return Spec.parse(value, kind).to_dict()


def check_arguments(target: Callable[..., Any], given: Mapping[str, Any], what: str, *, positional: int = 0) -> None:
    """Checks that a class or function takes the arguments of a spec, without calling it.

    Args:
        target: what will be called.
        given: its keyword arguments.
        what: how the message calls it, such as ``"rule 'ewc'"``.
        positional: how many first arguments the caller adds.

    Raises:
        TypeError: an argument it does not take (the nearest is named), one that is missing, or one of another type than the
            annotation of the class or function asks for.

    Example:
        >>> check_arguments(dict.fromkeys, {}, "nothing")  # a function without a signature is not checked
        >>> def scenario(length, seed=0): ...
        >>> check_arguments(scenario, {"lenght": 3}, "scenario 'mine'")
        Traceback (most recent call last):
        ...
        TypeError: scenario 'mine' has no argument 'lenght'; did you mean 'length'? It takes length, seed
        >>> def scenario(length: int, seed: int = 0): ...
        >>> check_arguments(scenario, {"length": "three"}, "scenario 'mine'")
        Traceback (most recent call last):
        ...
        TypeError: scenario 'mine': length must be a whole number, got 'three'
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    known = [p.name for p in parameters][:positional]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes = ", ".join(name for name in names if name not in known) or "no arguments"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in names:
                raise TypeError(f"{what} has no argument {name!r}{nearest(name, names)} It takes {takes}")
    for p in parameters:
        required = p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if required and p.name not in given and p.name not in known:
            raise TypeError(f"{what} needs the argument {p.name!r}. It takes {takes}")
    for name, annotation in annotations_of(target).items():
        options = options_in(annotation)
        if options is not None and isinstance(given.get(name), Mapping):
            check_arguments(options, given[name], f"{what}: {name}")
        elif name in given and not fits(given[name], annotation):
            raise TypeError(f"{what}: {name} must be {described(annotation)}, got {given[name]!r}")


def build(
    value: Specification,
    registry: Registry[Any],
    /,
    *positional: Any,
    trusted: bool = True,
    offered: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Any:
    """Builds what a spec describes.

    Args:
        value: a name, ``{"name": ..., ...}`` or ``{"class_path": ..., "init_args": ...}``.
        registry: of its kind.
        *positional: first arguments that the caller adds, such as an optimizer's parameters.
        trusted: see `Spec.resolve`.
        offered: keyword arguments for targets that take them, where the spec does not give them.
        **extra: keyword arguments that the caller adds, where the spec does not give them.

    Returns:
        What the class or function returned.

    Raises:
        KeyError: an unknown name; the nearest are named.
        TypeError: another form, or an argument that does not exist or is missing.
        ValueError: a class path that leads nowhere or must not be imported, or an argument out of range.

    Example:
        >>> numbers = Registry("number", {"fraction": "fractions:Fraction"}, group="example.numbers")
        >>> build({"name": "fraction", "numerator": 3, "denominator": 6}, numbers)
        Fraction(1, 2)
    """
    target, arguments = _prepared(value, registry, len(positional), trusted, offered or {}, extra)
    within = _FROM_A_FILE.set(_FROM_A_FILE.get() or not trusted)
    try:
        return target(*positional, **arguments)
    finally:
        _FROM_A_FILE.reset(within)


def check(
    value: Specification,
    registry: Registry[Any],
    /,
    *,
    positional: int = 0,
    trusted: bool = True,
    offered: Mapping[str, Any] | None = None,
) -> None:
    """Checks everything about a spec that can be known without building what it describes.

    Args:
        value: the spec.
        registry: of its kind.
        positional: how many first arguments the caller will add.
        trusted: see `Spec.resolve`.
        offered: as in `build`.

    Raises:
        KeyError, TypeError, ValueError: as in `build`.

    Example:
        >>> pools = Registry("pool", {"threads": "concurrent.futures:ThreadPoolExecutor"}, group="example.pools")
        >>> check({"name": "threads", "max_worker": 2}, pools)
        Traceback (most recent call last):
        ...
        TypeError: pool 'threads' has no argument 'max_worker'; did you mean 'max_workers'? It takes max_workers, ...
    """
    _prepared(value, registry, positional, trusted, offered or {}, {})


def _prepared(
    value: Specification,
    registry: Registry[Any],
    positional: int,
    trusted: bool,
    offered: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> tuple[Callable[..., Any], dict[str, Any]]:
    spec = Spec.parse(value, registry.kind)
    target = spec.resolve(registry, trusted=trusted)
    arguments = {**_taken(target, offered), **extra, **spec.arguments}
    what = f"{registry.kind} {spec.name or spec.class_path!r}"
    check_arguments(target, arguments, what, positional=positional)
    return target, arguments


def _taken(target: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in offered.items() if takes_all or name in parameters}


def _imported(class_path: str, kind: str) -> Callable[..., Any]:
    module, _, attribute = class_path.rpartition(".")
    try:
        if not all(part.isidentifier() for part in class_path.split(".")):
            raise ValueError("it is not a dotted name")
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no {kind} {class_path!r} ({error}): a class path names what is in a module, such as 'torch.optim.SGD'"
        ) from None
    if not callable(target):
        raise ValueError(f"{kind} {class_path!r} is a {type(target).__name__}, not a class or a function")
    return target  # type: ignore[no-any-return]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} must be text that is not empty, got {value!r}")
    return value

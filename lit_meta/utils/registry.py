"""Registries of rules, networks, sources and scenarios by name, open to other packages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_MOST_NAMES = 12  # Errors do not list more than this: the nearest matches are more helpful.
_NEAREST = 3


class UnknownNameError(KeyError):
    """A name that no registry holds; prints as a sentence (a bare `KeyError` prints as a quoted string)."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: object, known: Iterable[str], *, listed_by: str | None = None) -> UnknownNameError:
    """Builds the error for an unknown name, with the nearest matches.

    Args:
        kind: what was looked up, in the singular (``"rule"``).
        name: what was asked for.
        known: the names that exist; all are listed where they are few.
        listed_by: the command that lists them where they are many, such as ``"lit-meta rules"``.

    Returns:
        The exception, for the caller to raise.

    Example:
        >>> str(unknown("rule", "ecw", ["ewc", "naca"]))
        "unknown rule 'ecw'; did you mean 'ewc'? Known: ewc, naca."
        >>> str(unknown("entry", "mnist", [f"{n}-{d}" for n in ("a", "b", "c", "d", "e") for d in ("digits", "mnist", "usps")]))
        "unknown entry 'mnist'; did you mean 'e-mnist', 'd-mnist' or 'c-mnist'? There are 15."
    """
    names = sorted(known)
    near = _near(str(name), names)
    hint = f"; did you mean {_either(near)}?" if near else "."
    if len(names) <= _MOST_NAMES:
        listed = f" Known: {', '.join(names) or 'none'}."
    else:
        listed = f" There are {len(names)}{f'; {listed_by} lists them' if listed_by else ''}."
    return UnknownNameError(f"unknown {kind} {name!r}{hint}{listed}")


def _near(name: str, names: Sequence[str]) -> list[str]:
    """The few names most like one; where there are many names and none is like it, the least unlike."""
    near = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.5)
    if len(names) <= _MOST_NAMES:
        return near
    within = [known for known in names if name and name in known]
    least = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.0)
    return list(dict.fromkeys([*near, *within, *least]))[:_NEAREST]


def _either(names: Sequence[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last


class Registry(Mapping[str, T], Generic[T]):
    """Entries of one kind by name: those of this package, those registered in this process, and those of other packages.

    Nothing is imported until it is looked up. Names of this package are reserved: an installed package can add names, never
    replace one.

    Args:
        kind: what the registry holds, in the singular (``"rule"``), for error messages.
        entries: ``name -> "module:attribute"`` of this package.
        group: the entry-point group in which other packages add names of their own (``"lit_meta.rules"``).
        listed_by: the command that lists the names, for error messages.

    Example:
        >>> shapes = Registry("shape", {"fraction": "fractions:Fraction"}, group="example.shapes")
        >>> shapes["fraction"](1, 2)
        Fraction(1, 2)
        >>> shapes.origin("fraction")
        'fractions:Fraction'
        >>> shapes["friction"]
        Traceback (most recent call last):
        ...
        lit_meta.utils.registry.UnknownNameError: unknown shape 'friction'; did you mean 'fraction'? Known: fraction.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], *, group: str, listed_by: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self.listed_by = listed_by
        self._own = dict(entries)
        self._registered: dict[str, T] = {}

    @cached_property
    def _foreign(self) -> dict[str, list[EntryPoint]]:
        """Entry points of installed packages by name, read once."""
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.name not in self._own:
                points.setdefault(point.name, []).append(point)
        return points

    def __getitem__(self, name: str) -> T:
        """The entry of that name, imported if necessary.

        Raises:
            KeyError: there is none; the nearest are named.
            ValueError: two packages use that name for different entries, or the package that provides it cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._own:
            return self._load(self._own[name])
        points = self._foreign.get(name, [])
        if not points:
            raise unknown(self.kind, name, self, listed_by=self.listed_by)
        if len({point.value for point in points}) > 1:
            origins = " and ".join(sorted(_origin(point) for point in points))
            raise ValueError(f"{self.kind} {name!r} is ambiguous, it comes from {origins}: name one by its class_path")
        try:
            return cast(T, points[0].load())
        except Exception as error:
            raise ValueError(f"{self.kind} {name!r} cannot be imported from {_origin(points[0])}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._own, *self._registered, *self._foreign}))

    def __len__(self) -> int:
        return len({*self._own, *self._registered, *self._foreign})

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._registered or name in self._foreign

    def register(self, name: str, target: T) -> T:
        """Adds a name for the life of the process, as a notebook needs it; a package declares an entry point instead.

        Raises:
            ValueError: the name is taken.
        """
        if name in self and self._registered.get(name) is not target:
            raise ValueError(f"there is a {self.kind} {name!r} already, from {self.origin(name)}: choose another name")
        self._registered[name] = target
        return target

    @property
    def targets(self) -> list[str]:
        """``"module:attribute"`` of all entries of this package."""
        return list(self._own.values())

    def origin(self, name: str) -> str:
        """The origin of an entry: ``"module:attribute"``, with package and version if it is another package's.

        Raises:
            KeyError: no such name.
        """
        if name in self._registered:
            return f"{getattr(self._registered[name], '__module__', '?')} (registered in this process)"
        if name in self._own:
            return self._own[name]
        if name not in self._foreign:
            raise unknown(self.kind, name, self, listed_by=self.listed_by)
        return " and ".join(sorted(_origin(point) for point in self._foreign[name]))

    def is_foreign(self, name: str) -> bool:
        """Whether another package (or this process) added the name."""
        return name not in self._own

    def named(self, class_path: str) -> str | None:
        """The name that this package or another gave to ``"module.attribute"``; imports nothing."""
        for name, target in self._own.items():
            if target.replace(":", ".") == class_path:
                return name
        for name, points in self._foreign.items():
            if any(point.value.replace(":", ".") == class_path for point in points):
                return name
        return None

    @staticmethod
    def _load(target: str) -> T:
        module, _, attribute = target.partition(":")
        return cast(T, getattr(importlib.import_module(module), attribute))


def _origin(point: EntryPoint) -> str:
    distribution = f" ({point.dist.name} {point.dist.version})" if point.dist is not None else ""
    return f"{point.value}{distribution}"

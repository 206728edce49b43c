"""Registries of rules, networks, sources and scenarios by name, open to other packages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_MOST_NAMES = 12  # Errors do not list more than this: the nearest matches are more helpful.


class UnknownNameError(KeyError):
    """A name that no registry holds; prints as a sentence (a bare `KeyError` prints as a quoted string)."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Builds the error for an unknown name, with the nearest matches.

    Args:
        kind: what was looked up, in the singular (``"rule"``).
        name: what was asked for.
        known: the names that exist; listed where they are few.

    Returns:
        The exception, for the caller to raise.

    Example:
        >>> str(unknown("rule", "ecw", ["ewc", "naca"]))
        "unknown rule 'ecw'; did you mean 'ewc'? Known: ewc, naca."
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    listed = f" Known: {', '.join(names) or 'none'}." if len(names) <= _MOST_NAMES or not near else ""
    return UnknownNameError(f"unknown {kind} {name!r}{hint}{listed}")


class Registry(Mapping[str, T], Generic[T]):
    """Entries of one kind by name: those of this package, those registered in this process, and those of other packages.

    Nothing is imported until it is looked up. Names of this package are reserved: an installed package can add names, never
    replace one.

    Args:
        kind: what the registry holds, in the singular (``"rule"``), for error messages.
        entries: ``name -> "module:attribute"`` of this package.
        group: the entry-point group in which other packages add names of their own (``"lit_meta.rules"``).

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

    def __init__(self, kind: str, entries: Mapping[str, str], *, group: str) -> None:
        self.kind = kind
        self.group = group
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
            raise unknown(self.kind, name, self)
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
            raise unknown(self.kind, name, self)
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

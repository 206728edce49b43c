"""Names of a package that are imported when they are used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any


def lazy_exports(
    package: str, targets: Iterable[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports each of its names on first use.

    Args:
        package: its ``__name__``.
        targets: ``"module:attribute"`` for each name it exports.

    Returns:
        The three, to be assigned in the package.

    Example:
        >>> lookup, _, names = lazy_exports("fractions", ["fractions:Fraction"])
        >>> names, lookup("Fraction")(1, 2)
        (['Fraction'], Fraction(1, 2))
    """
    modules = {attribute: module for module, _, attribute in (target.partition(":") for target in targets)}

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    names = sorted(modules)
    return __getattr__, lambda: names, names

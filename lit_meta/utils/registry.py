"""Errors for names that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(KeyError):
    """A name that no registry holds; prints as a sentence (a bare `KeyError` prints as a quoted string)."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Builds the error for an unknown name, naming the nearest matches and every name there is.

    Args:
        kind: what was looked up, in the singular (``"rule"``).
        name: what was asked for.
        known: the names that would have been found.

    Returns:
        The exception, to be raised by the caller.

    Example:
        >>> str(unknown("rule", "ecw", ["ewc", "naca"]))
        "unknown rule 'ecw'; did you mean 'ewc'? Known: ewc, naca."
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names) or 'none'}.")

"""Checks of plain arguments, with one-sentence error messages; needs only the standard library."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real


def require_in(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Checks that a hyperparameter is in [low, high] (or (low, high] with ``open_low``).

    Raises:
        ValueError: it is outside, or not a number.

    Example:
        >>> require_in("strength", -1.0, 0.0, float("inf"))
        Traceback (most recent call last):
        ...
        ValueError: strength must be in [0.0, inf], got -1.0
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not (low < value <= high if open_low else low <= value <= high)
    ):
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low}, {high}], got {value!r}")


def require_count(name: str, value: object, least: int = 1) -> int:
    """Checks that an argument is a whole number, and not a small one; returns it.

    Raises:
        ValueError: it is smaller, or no whole number.

    Example:
        >>> require_count("samples", 2.5)
        Traceback (most recent call last):
        ...
        ValueError: samples must be a whole number of at least 1, got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def require_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Checks that a hyperparameter is one of a few values.

    Raises:
        ValueError: it is another value.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: a suggestion of the most similar known one, if there is any.

    Example:
        >>> nearest("max_epoch", ["name", "max_epochs"]), nearest("x", ["name"])
        ("; did you mean 'max_epochs'?", '.')
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "."


def require_keys(what: str, given: object, known: Sequence[str], *, needed: Sequence[str] = ()) -> Mapping[str, object]:
    """Checks that a mapping has only known keys and all required ones.

    Args:
        what: the mapping, for the message.
        given: the mapping.
        known: keys that have a meaning.
        needed: keys that must be there.

    Returns:
        The mapping.

    Raises:
        TypeError: it is not a mapping.
        ValueError: a key is unknown (the nearest is named), or one is missing.

    Example:
        >>> require_keys("an experiment", {"max_epoch": 1}, ["name", "max_epochs"])
        Traceback (most recent call last):
        ...
        ValueError: an experiment has no key 'max_epoch'; did you mean 'max_epochs'? It has name, max_epochs
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping, got {given!r}")
    for key in given:
        if key not in known:
            raise ValueError(f"{what} has no key {key!r}{nearest(key, known)} It has {', '.join(known)}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{what} needs {key}")
    return given


@contextmanager
def located(where: str) -> Iterator[None]:
    """Says where in a config an error comes from: ``where`` is put before its message, and the error stays the same one.

    Example:
        >>> with located("controls.wide: "):
        ...     require_in("strength", -1.0, 0.0, 1.0)
        Traceback (most recent call last):
        ...
        ValueError: controls.wide: strength must be in [0.0, 1.0], got -1.0
    """
    try:
        yield
    except Exception as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (f"{where}{error.args[0]}",)
        raise

"""Telling what a user can mend from what is a fault of the program."""

from __future__ import annotations

import dis
import traceback
from pathlib import Path
from types import TracebackType

from lit_meta.cli.console import error_console, printable

BAD_INPUT = 1
INTERNAL_ERROR = 70  # As of sysexits.h: an internal software error.
_LONGEST = 1000  # Characters of a message.
_PACKAGE = Path(__file__).resolve().parent.parent
# The types that we raise on bad input, and those that libraries use to say so.
_OURS = (ValueError, TypeError, KeyError, RuntimeError)
_OF_LIBRARIES = (ValueError, RuntimeError)


def is_bad_input(error: BaseException) -> bool:
    """Whether an error speaks of what the user gave, or of his machine; if not, the program itself is at fault.

    It does where a ``raise`` statement of the package made it: that is how we refuse input. The same type that Python raises
    by itself inside the package, for a missing key of a dictionary or a wrong argument of a function, is a bug. What a library
    raises is taken for input where its type says so, since much of a config is handed on to libraries. Files and devices
    are the user's in any case.

    Example:
        >>> from lit_meta.utils.validation import require_in
        >>> def caught(function):
        ...     try: function()
        ...     except Exception as error: return error
        >>> is_bad_input(caught(lambda: require_in("strength", -1.0, 0.0, 1.0)))
        True
        >>> is_bad_input(caught(lambda: require_in("strength")))
        False
    """
    if isinstance(error, OSError):
        return True
    origin = _origin(error)
    if origin is None or not isinstance(error, _OURS):
        return False
    if _PACKAGE in Path(origin.tb_frame.f_code.co_filename).resolve().parents:
        return _raises(origin)
    return isinstance(error, _OF_LIBRARIES)


def report(error: Exception) -> int:
    """Says on the error stream what went wrong; returns the exit status."""
    if is_bad_input(error):
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        message = " ".join(said.split()) or type(error).__name__
        say(message)
        return BAD_INPUT
    text = "".join(traceback.format_exception(error))
    console = error_console()
    message = "lit-meta: an internal error, not one of your input; please report it together with the lines above"
    console.print(f"{text}{message}", markup=False, highlight=False, soft_wrap=True)
    return INTERNAL_ERROR


def say(message: str) -> None:
    """One line on the error stream."""
    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST:  # A value of a file, quoted whole.
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    error_console().print(f"lit-meta: {line}", markup=False, highlight=False, soft_wrap=True)


def _origin(error: BaseException) -> TracebackType | None:
    """The innermost frame of an error's traceback."""
    origin = error.__traceback__
    while origin is not None and origin.tb_next is not None:
        origin = origin.tb_next
    return origin


def _raises(origin: TracebackType) -> bool:
    """Whether a frame was left by a ``raise`` statement of its own."""
    return dis.opname[origin.tb_frame.f_code.co_code[origin.tb_lasti]] == "RAISE_VARARGS"

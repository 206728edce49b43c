"""Libraries that only some things need."""

from __future__ import annotations

import importlib
from types import ModuleType


def needed(module: str, extra: str, what: str) -> ModuleType:
    """Imports a library that an extra brings.

    Args:
        module: its name.
        extra: of ``pip install 'lit-meta[...]'``.
        what: what needs it, for the message.

    Raises:
        ValueError: it is not installed; the message says what to install.

    Example:
        >>> needed("json", "none", "a file").__name__
        'json'
        >>> needed("no_such_library", "events", "an event recording")
        Traceback (most recent call last):
        ...
        ValueError: an event recording needs no_such_library: pip install 'lit-meta[events]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise  # Installed, but broken: another library is missing.
        raise ValueError(f"{what} needs {module.split('.')[0]}: pip install 'lit-meta[{extra}]'") from None

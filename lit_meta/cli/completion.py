"""``lit-meta completion``: names and options completed by the shell."""

from __future__ import annotations

import sys
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.parsing import add_command

_SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "completion",
        completion,
        "print a script that makes a shell complete commands and options",
        example='eval "$(lit-meta completion bash)", in ~/.bashrc',
    )
    parser.add_argument("shell", choices=_SHELLS)


def completion(options: Namespace) -> dict[str, Any]:
    try:
        import shtab
    except ImportError:
        raise RuntimeError(
            "completion needs shtab, which is not installed: pip install 'lit-meta[completion]', or pip install shtab"
        ) from None
    from lit_meta.cli import parser

    script = shtab.complete(parser(), options.shell)
    sys.stdout.write(script)
    return {"shell": options.shell, "script": script}

"""The command ``lit-meta``; each subcommand is a module beside this one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lit_meta._version import __version__
from lit_meta.cli import (
    audit,
    bench,
    completion,
    demo,
    errors,
    evaluate,
    listing,
    predict,
    report,
    retention,
    run,
    schema,
    sweep,
    zoo,
)
from lit_meta.cli.console import error_console
from lit_meta.cli.parsing import CommandParser, chosen

# Each module has add(subparsers), which registers its commands and their functions.
_COMMANDS = (demo, run, sweep, evaluate, predict, audit, bench, report, retention, zoo, listing, schema, completion)


def parser() -> CommandParser:
    """The whole command-line parser."""
    top = CommandParser(
        prog="lit-meta",
        description="Metaplasticity for PyTorch Lightning: train, evaluate, measure, share.",
        epilog="example: lit-meta run mlp.naca_split-digits --max_epochs 2; lit-meta COMMAND --help has more",
    )
    top.add_argument("--version", action="version", version=f"lit-meta {__version__}")
    top.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    commands = top.add_subcommands(dest="command", title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, 1 for bad input, 2 for wrong usage, 70 for an error of the program's own, 130 when interrupted.

    Raises:
        SystemExit: a stream was ended by SIGTERM (status 143) or SIGHUP (129); what it has learned is saved.
    """
    # What libraries say to their own developers is no news to a user of the command.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")
    warnings.filterwarnings("ignore", message="no QP solver found")
    # What is left is for him: one line.
    warnings.showwarning = lambda message, *_, **__: errors.say(str(message))
    top = parser()
    everything = top.parse_args(arguments)
    function, options = chosen(top, everything)
    try:
        if options.json is not None:
            from lit_meta.utils.io import check_target

            check_target(Path(options.json))
        facts = function(options)
        if options.json is not None:
            from lit_meta.utils.io import save_json

            save_json(Path(options.json), facts)
        return int(facts.get("exit_status", 0)) if isinstance(facts, dict) else 0
    except KeyboardInterrupt as error:
        if not str(error):  # A stream has said where it ended.
            error_console().print("interrupted")
        return 130
    except Exception as error:
        if everything.debug:
            raise
        return errors.report(error)


if __name__ == "__main__":
    sys.exit(main())

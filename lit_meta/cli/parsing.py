"""The parser of the commands: jsonargparse's, with settings of a config as options and the nearest name for a wrong one."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

Function = Callable[[Namespace], dict[str, Any]]

_UNKNOWN = re.compile(r"unrecognized arguments: (--?[^\s=]+)|invalid choice: '([^']*)'|Subcommand '([^']*)'")


class CommandParser(ArgumentParser):  # type: ignore[misc]
    """The parser of ``lit-meta`` or of one of its commands.

    Attributes:
        function: runs the command; None where there are further commands below this one.
        settings: keys of a config that the command takes as options, ``--KEY VALUE`` or ``--KEY.PART VALUE``. They are kept,
            in order, as ``KEY.PART=VALUE`` in the option ``set``.
    """

    function: Function | None = None
    settings: tuple[str, ...] = ()
    subcommand: str = ""

    def __init__(self, **arguments: Any) -> None:
        # An abbreviated option means something else as soon as a longer name is added.
        super().__init__(allow_abbrev=False, print_config=None, formatter_class=argparse.HelpFormatter, **arguments)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None, **options: Any
    ) -> Namespace:
        given = list(sys.argv[1:] if args is None else args)
        return super().parse_args(list(self._with_settings(given)), namespace, **options)

    def _with_settings(self, given: Sequence[str]) -> Iterator[str]:
        tokens = iter(given)
        for token in tokens:
            path, equals, value = token.removeprefix("--").partition("=")
            if not token.startswith("--") or path.split(".")[0] not in self.settings:
                yield token
                continue
            if not equals:
                value = next(tokens, "--")
                if value.startswith("--"):
                    self.error(f"argument --{path}: expected a value")
            yield f"--set={path}={value}"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        match = _UNKNOWN.search(message)
        if match:
            message = f"{message.split(' (choose from')[0]}{self._hint(next(filter(None, match.groups())))}"
        self.print_usage(sys.stderr)
        sys.stderr.write(f"{self.prog.replace(' [options]', '')}: error: {message}\n")
        sys.exit(2)

    def _hint(self, wrong: str) -> str:
        head, dot, rest = wrong.partition(".")
        known = [option for action in self._actions for option in action.option_strings] or []
        if not wrong.startswith("-"):
            known = list(commands_of(self))
        near = difflib.get_close_matches(head, known, n=1, cutoff=0.6)
        return (
            f"; did you mean {near[0]}{dot}{rest}?" if near else f"; see {self.prog.replace(' [options]', '')} --help"
        )


def commands_of(parser: CommandParser) -> dict[str, CommandParser]:
    """The parsers of a parser's commands, by name."""
    return {
        name: command
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, command in action.choices.items()
    }


def add_command(commands: Any, name: str, function: Function | None, help: str, example: str) -> CommandParser:
    """Registers a command; every command takes ``--json``.

    Args:
        commands: what ``add_subcommands`` returned.
        name: of the command.
        function: runs it; None where it has commands of its own.
        help: what it does, in one line.
        example: a command line that works.
    """
    description = f"{help[0].upper()}{help[1:]}." if not help.endswith("?") else f"{help[0].upper()}{help[1:]}"
    parser = CommandParser(description=description, epilog=f"example: {example}")
    parser.function = function
    if function is not None:
        parser.add_argument("--json", metavar="FILE", help="also write the facts of the table as JSON")
    commands.add_subcommand(name, parser, help=help)
    return parser


def add_jobs(parser: CommandParser) -> None:
    """The options of what runs side by side."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many fits run side by side (default: 1)")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="run the jobs on the Dask cluster of this scheduler, such as tcp://node1:8786",
    )


def chosen(parser: CommandParser, options: Namespace) -> tuple[Function, Namespace]:
    """The function of the command that was given, and the command's options."""
    while parser.function is None:
        name = options.command
        parser, options = commands_of(parser)[name], options[name]
    return parser.function, options


def command_line(parser: CommandParser, options: Namespace, changes: Mapping[str, Any]) -> str:
    """The command that gives the same results again, from what the parser knows of its options.

    Args:
        parser: of the command.
        options: as they were given.
        changes: options with another value than was given, such as a default that was worked out; None leaves one out.
    """
    parts = ["lit-meta", parser.subcommand]
    for action in parser._actions:
        value = changes.get(action.dest, options.get(action.dest))
        if action.dest in ("help", argparse.SUPPRESS) or value in (None, False, []) or value == action.default:
            continue
        if action.dest == "set":
            parts += [part for setting in value for part in _as_option(setting)]
        elif not action.option_strings:
            parts.append(str(value))
        else:
            parts += [action.option_strings[0], *_words(value)]
    return shlex.join(parts)


def _as_option(setting: str) -> tuple[str, str]:
    path, _, value = setting.partition("=")
    return f"--{path}", value


def _words(value: Any) -> list[str]:
    if value is True:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]

"""What the commands print with: tables, progress, numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lit_meta.utils.progress import line_by_line

if TYPE_CHECKING:
    from lit_meta.data.benchmark import Benchmark
    from lit_meta.experiments.config import Experiment

_LEFT = TextColumn("left")
_NAME = 36  # Characters of a name that leaves room for columns beside it.


def console() -> Console:
    """The console for results (standard output)."""
    return Console()


def error_console() -> Console:
    """The console for errors and progress (standard error)."""
    return Console(stderr=True)


def printable(text: str) -> str:
    r"""Text whose control characters are written out: what a file holds must not steer the terminal.

    Example:
        >>> printable("\x1b[2Jdigits")
        '\\x1b[2Jdigits'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str | None = None) -> None:
    """Prints a table whose first column is text, names unbroken, and whose others are numbers or short words."""
    shown = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    names = all(len(str(row[0])) <= _NAME and " " not in str(row[0]) for row in rows)
    for position, column in enumerate(columns):
        first = position == 0
        shown.add_column(column, justify="left" if first else "right", overflow="fold", no_wrap=first and names)
    for row in rows:
        shown.add_row(*(printable(str(cell)) for cell in row))
    console().print(shown)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error; the yielded function moves it by one and says what was done and with what result.

    Outside a terminal, each call writes a line of its own.
    """
    console = error_console()
    if not console.is_terminal:
        told = line_by_line(total)
        yield lambda text: told(printable(text))  # A name may be a stranger's.
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), _LEFT)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(text: str) -> None:
            bar.update(task, advance=1, description=escape(printable(text)))

        yield advance


@contextmanager
def experiment_progress(
    experiment: Experiment, benchmark: Benchmark, learners: Sequence[str], *, learned: int = 0
) -> Iterator[Callable[[str, int, int, object], None]]:
    """A progress bar over the experiences of all learners and seeds but those that a run which is resumed has ``learned``.

    Yields what `run_experiment` calls after each.
    """
    stream = benchmark.train_stream
    experiences = len(stream) if isinstance(stream, Sized) else sum(1 for _ in stream)
    total = len(experiment.seeds) * sum(1 if learner == "joint" else experiences for learner in learners)
    with progress(total - learned, experiment.name) as advance:

        def told(learner: str, seed: int, index: int, row: Any) -> None:
            where = "all at once" if learner == "joint" else f"experience {index + 1}"
            seen = row if learner == "joint" else row[: index + 1]
            result = f"{percent(float(seen.mean()))} % on what was learned"
            advance(f"{experiment.name}: {learner}, seed {seed}, {where}: {result}")

        yield told


def percent(value: float | None) -> str:
    """A fraction in per cent, or a dash.

    Example:
        >>> percent(0.12345), percent(None)
        ('12.3', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}"

"""``lit-meta report``: figures and one page of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, progress, table
from lit_meta.cli.parsing import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        report,
        "figures and one HTML page of finished runs",
        example="lit-meta report runs/naca runs/ewc --page runs/both.html",
    )
    parser.add_argument(
        "run_dirs", nargs="+", metavar="RUN_DIR", help="folder of a finished run; several go side by side"
    )
    parser.add_argument(
        "--page", metavar="FILE", help="where the page goes (default: report.html in the first RUN_DIR)"
    )


def report(options: Namespace) -> dict[str, Any]:
    from lit_meta.report import write_report

    with progress(len(options.run_dirs), "drawing") as advance:
        facts = write_report(options.run_dirs, file=options.page, on_run=advance)
    rows = [
        (run["name"], learner, f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]")
        for run in facts["runs"]
        for learner, found in run["accuracy"].items()
    ]
    caption = "in brackets: 95 % t-interval over seeds"
    table("report: average accuracy at the end (%)", ("run", "learner", "accuracy"), rows, caption)
    folders = ", ".join(sorted({str(Path(figure).parent) for figure in facts["figures"]}))
    console().print(f"{len(facts['figures'])} figure files are in {folders}", soft_wrap=True)
    console().print(f"the page is {facts['page']}", soft_wrap=True)
    return facts

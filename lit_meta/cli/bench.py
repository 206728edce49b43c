"""``lit-meta bench``: speed and memory, side by side with what people would use instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, progress, table
from lit_meta.cli.parsing import add_command

_REPEATS, _BRIEF_REPEATS = 15, 5
_COLUMNS = ("benchmark", "subject : baseline", "ratio", "95 % interval", "target", "holds")
_SCALING_COLUMNS = ("benchmark", "subject, against", "exponent", "95 % interval", "target", "holds")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "bench",
        bench,
        "measure speed and memory against what people would use instead",
        example="lit-meta bench rules --json rules.json",
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="ids or groups (default: a few that take two minutes together)"
    )
    parser.add_argument("--full", action="store_true", help="all there are; every row is kept as it is measured")
    parser.add_argument(
        "--repeats",
        type=int,
        help=f"how often each is measured, at least 2 (default: {_REPEATS}; {_BRIEF_REPEATS} without SUBJECT and --full)",
    )
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall", help="processor: where others use the machine too"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument(
        "--from_json", nargs="+", metavar="FILE", help="show what former calls wrote with --json; measure nothing"
    )
    parser.add_argument("--markdown", metavar="FILE", help="put the tables into FILE, between its bench markers")


def bench(options: Namespace) -> dict[str, Any]:
    import torch

    from lit_meta.bench import BRIEF, Benchmark, choose, machine
    from lit_meta.utils.io import save_json

    if options.from_json:
        return _show(_joined([Path(file) for file in options.from_json]), options)
    if options.full and options.subjects:
        raise ValueError(f"--full measures all there are: leave out {' '.join(options.subjects)}, or --full")
    brief = not (options.full or options.subjects)
    chosen = choose(options.subjects if not brief or options.list else BRIEF)
    if options.list:
        table(
            "benchmarks",
            ("benchmark", "subject", "baseline or what is varied", "target"),
            [
                (b.id, b.subject, b.baseline if isinstance(b, Benchmark) else b.against, _number(b.target))
                for b in chosen
            ],
        )
        return {"benchmarks": [b.id for b in chosen]}
    repeats = options.repeats if options.repeats is not None else _BRIEF_REPEATS if brief else _REPEATS
    for name, value, least in (("--repeats", repeats, 2), ("--threads", options.threads, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    facts: dict[str, Any] = {
        "machine": {**machine(), "clock": options.clock, "repeats": repeats},
        "rows": [],
        "scaling": [],
        "skipped": {},
    }
    _head(facts["machine"])
    with progress(len(chosen), "measuring") as advance:
        for position, benchmark in enumerate(chosen):
            if benchmark.missing:
                facts["skipped"][benchmark.id] = benchmark.missing
                _say_skipped(benchmark.id, benchmark.missing)
            else:
                row = benchmark.run(repeats=repeats, clock=options.clock).to_dict()
                facts["rows" if isinstance(benchmark, Benchmark) else "scaling"].append(row)
                _say(row)
            if options.json is not None:  # Every row is on the disk at once: a bench that is stopped keeps what it has.
                save_json(Path(options.json), {**facts, "unfinished": [b.id for b in chosen[position + 1 :]]})
            advance(benchmark.id)
    return _end(facts, options, brief=brief)


def _joined(files: Sequence[Path]) -> dict[str, Any]:
    """The facts of several calls as one.

    Raises:
        ValueError: they were measured in different ways, or hold the same benchmark twice.
    """
    from lit_meta.utils.io import load_json

    parts = [load_json(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if not {"machine", "rows", "scaling", "skipped"} <= part.keys():
            raise ValueError(f"{file} was not written by lit-meta bench --json")
    facts = {**parts[0], "rows": [], "scaling": [], "skipped": {}}
    for file, part in zip(files, parts, strict=True):
        if part["machine"] != facts["machine"]:
            raise ValueError(f"{file} was measured in another way than {files[0]}: {part['machine']}")
        facts["rows"] += part["rows"]
        facts["scaling"] += part["scaling"]
        facts["skipped"].update(part["skipped"])
    ids = [row["id"] for row in (*facts["rows"], *facts["scaling"])]
    if len(set(ids)) < len(ids):
        raise ValueError(f"the files hold {next(id for id in ids if ids.count(id) > 1)!r} more than once")
    return facts


def _show(facts: dict[str, Any], options: Namespace) -> dict[str, Any]:
    """Says the rows of former calls."""
    _head(facts["machine"])
    for row in (*facts["rows"], *facts["scaling"]):
        _say(row)
    for id, modules in facts["skipped"].items():
        _say_skipped(id, modules)
    return _end(facts, options)


def _head(machine: Mapping[str, Any]) -> None:
    console().print(_caption(machine), soft_wrap=True, highlight=False)
    console().print(_line("benchmark", "ratio", "95 % interval", "target", "holds"), soft_wrap=True, highlight=False)


def _say(row: Mapping[str, Any]) -> None:
    """A row in 80 columns; what is compared is told by --list and in the tables of --markdown."""
    id, _, *cells = _scaling_row(row) if "exponent" in row else _row(row)
    mark = "~" if "exponent" in row else ""
    console().print(_line(id, f"{mark}{cells[0]}", *cells[1:]), soft_wrap=True, highlight=False)


def _line(id: str, value: str, interval: str, target: str, holds: str) -> str:
    """
    Example:
        >>> len(_line("scaling/ewc-experiences", "0.010", "-0.010 – 0.020", "0.1", "yes"))
        70
    """
    return f"{id:<28}{value:>10}{interval:>18}{target:>8}{holds:>6}"


def _say_skipped(id: str, modules: Sequence[str]) -> None:
    console().print(f"left out: {id} (not installed: {', '.join(modules)})", soft_wrap=True, highlight=False)


def _caption(where: Mapping[str, Any]) -> str:
    time = "wall-clock time" if where["clock"] == "wall" else "processor time"
    return f"medians of {where['repeats']} interleaved repeats; {time}, {where['threads']} thread(s), torch {where['torch']}"


def _end(facts: dict[str, Any], options: Namespace, *, brief: bool = False) -> dict[str, Any]:
    rows, scaling = [_row(r) for r in facts["rows"]], [_scaling_row(r) for r in facts["scaling"]]
    if scaling:
        console().print("~: exponent of the growth of the cost with a size, in place of a ratio", soft_wrap=True)
    console().print("ratio: cost of the subject / cost of the baseline; --list says which they are", soft_wrap=True)
    if brief:
        console().print(
            "these are a few of them: --full measures all, lit-meta bench GROUP those of a group", soft_wrap=True
        )
    if options.markdown:
        _write_markdown(Path(options.markdown), rows, scaling, _caption(facts["machine"]))
    missed = [r["id"] for r in (*facts["rows"], *facts["scaling"]) if r["holds"] is False]
    return {**facts, "missed": missed, "exit_status": int(options.check and bool(missed))}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _verdict(holds: bool | None) -> str:
    return "–" if holds is None else "yes" if holds else "no"


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{result['low']:.3f} – {result['high']:.3f}"
    measured = (f"{result['ratio']:.3f}", interval, _number(result["target"]), _verdict(result["holds"]))
    return (result["id"], f"{result['subject']} : {result['baseline']}", *measured)


def _scaling_row(result: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{result['low']:.2f} – {result['high']:.2f}"
    what = f"{result['subject']}, {result['against']} {result['values'][0]}–{result['values'][-1]}"
    measured = (f"{result['exponent']:.2f}", interval, _number(result["target"]), _verdict(result["holds"]))
    return (result["id"], what, *measured)


_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"


def _write_markdown(path: Path, rows: Sequence[Sequence[str]], scaling: Sequence[Sequence[str]], caption: str) -> None:
    text = path.read_text()
    if text.count(_BEGIN) != 1 or text.count(_END) != 1 or text.index(_BEGIN) > text.index(_END):
        raise ValueError(
            f"{path} needs one line {_BEGIN!r} and, after it, one line {_END!r}, to put the tables between"
        )
    lines = [_BEGIN, ""]
    for columns, part in ((_COLUMNS, rows), (_SCALING_COLUMNS, scaling)):
        if part:
            lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            lines += [f"| {' | '.join(row)} |" for row in part]
            lines += [""]
    lines += [f"{caption[0].upper()}{caption[1:]}.", "", _END]
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    path.write_text(before + "\n".join(lines) + after)

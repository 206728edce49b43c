"""``lit-meta bench``: speed and memory, side by side with what people would use instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, progress, table
from lit_meta.cli.parsing import add_command

if TYPE_CHECKING:
    from lit_meta.bench import Result, ScalingResult

_REPEATS, _QUICK = 15, 5
_COLUMNS = ("benchmark", "subject : baseline", "ratio", "95 % interval", "target", "holds")
_SCALING_COLUMNS = ("benchmark", "subject, against", "exponent", "95 % interval", "target", "holds")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "bench",
        bench,
        "measure speed and memory against what people would use instead",
        example="lit-meta bench --quick rules",
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="ids or groups (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} repeats in place of {_REPEATS}")
    parser.add_argument("--repeats", type=int, help="how often each is measured")
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

    from lit_meta.bench import Benchmark, choose, machine

    if options.from_json:
        return _show(_joined([Path(file) for file in options.from_json]), options)
    chosen = choose(options.subjects)
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
    repeats = options.repeats or (_QUICK if options.quick else _REPEATS)
    if options.threads is not None:
        if options.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    results: list[Result] = []
    scaling: list[ScalingResult] = []
    skipped: dict[str, list[str]] = {}
    with progress(len(chosen), "measuring") as advance:
        for benchmark in chosen:
            if benchmark.missing:
                skipped[benchmark.id] = benchmark.missing
            elif isinstance(benchmark, Benchmark):
                results.append(benchmark.run(repeats=repeats, clock=options.clock))
            else:
                scaling.append(benchmark.run(repeats=repeats, clock=options.clock))
            advance(benchmark.id)
    return _show(
        {
            "machine": {**machine(), "clock": options.clock, "repeats": repeats},
            "rows": [r.to_dict() for r in results],
            "scaling": [r.to_dict() for r in scaling],
            "skipped": skipped,
        },
        options,
    )


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
    where = facts["machine"]
    time = "wall-clock time" if where["clock"] == "wall" else "processor time"
    caption = f"medians of {where['repeats']} interleaved repeats; {time}, {where['threads']} thread(s), torch {where['torch']}"
    rows, scaling = [_row(r) for r in facts["rows"]], [_scaling_row(r) for r in facts["scaling"]]
    if rows:
        table("cost of subject / cost of baseline", _COLUMNS, rows, caption)
    if scaling:
        table("growth of the cost", _SCALING_COLUMNS, scaling, caption)
    for id, modules in facts["skipped"].items():
        console().print(f"left out: {id} (not installed: {', '.join(modules)})")
    if options.markdown:
        _write_markdown(Path(options.markdown), rows, scaling, caption)
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

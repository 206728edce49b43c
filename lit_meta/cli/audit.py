"""``lit-meta audit``: does accuracy depend on how test batches are made?"""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, percent, table
from lit_meta.cli.parsing import add_command
from lit_meta.cli.trained import trained


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "audit",
        audit,
        "does accuracy depend on how test batches are made?",
        example="lit-meta audit mlp.naca_split-digits",
    )
    parser.add_argument("name", help="a zoo entry, or the folder of a finished run")
    parser.add_argument("--scenario", help="another scenario than the one it was trained on")
    parser.add_argument("--threshold", type=float, default=0.5, help="the largest difference in points (default: 0.5)")
    parser.add_argument("--batch_size", type=int, default=256, help="of the shuffled batches (default: 256)")
    parser.add_argument(
        "--singles", type=int, default=1000, help="samples tested one by one, evenly over the classes; 0: all"
    )
    parser.add_argument("--samples", type=int, default=0, help="test at most this many in all conditions; 0: all")


def audit(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.scenarios import scenario_for_seed
    from lit_meta.evaluation.audit import audit as audit_model

    network, experiment, seed = trained(options.name)
    benchmark = scenario_for_seed(options.scenario or experiment.scenario, seed, trusted=options.scenario is not None)
    report = audit_model(
        network,
        benchmark,
        threshold=options.threshold / 100,
        batch_size=options.batch_size,
        singles=options.singles or None,
        samples=options.samples or None,
    )
    rows = [
        (
            c.name,
            "–" if c.error else percent(c.accuracy),
            "–" if c.difference is None else f"{100 * c.difference:+.2f}",
            f"{c.disagreements} of {c.samples}",
            "not judged" if not c.judged else "differs" if c.fails(report.threshold) else "same",
        )
        for c in report.conditions
    ]
    columns = ("test batches", "accuracy (%)", "difference (points)", "other predictions", "verdict")
    caption = f"difference: from the same samples in shuffled batches; up to {options.threshold:g} points pass"
    table(f"audit of {options.name} on {benchmark.name}", columns, rows, caption)
    out = console()
    for cause in report.causes:
        out.print(f"{'cause' if report.failures else 'could matter'}: {cause}", soft_wrap=True, markup=False)
    if report.passed:
        out.print("[green]passed[/green]: a prediction depends on its own sample only")
    else:
        failed = ", ".join(condition.name for condition in report.failures)
        out.print(f"[red]failed[/red]: predictions depend on how test batches are made ({failed})", soft_wrap=True)
    return {
        "name": options.name,
        "scenario": benchmark.name,
        "seed": seed,
        **report.to_dict(),
        "exit_status": int(not report.passed),
    }

"""``lit-meta retention``: what one trained network lost of what another knows, class by class."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import table
from lit_meta.cli.parsing import add_command
from lit_meta.cli.trained import trained


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "retention",
        retention,
        "compare two trained networks on the same test samples, class by class",
        example="lit-meta retention patch-net.recursive-readout_split-digits mlp.ewc_split-digits",
    )
    parser.add_argument("before", metavar="BEFORE", help="a zoo entry, or the folder of a finished run")
    parser.add_argument("after", metavar="AFTER", help="another, or the same network at a later time")
    parser.add_argument("--scenario", help="whose test samples are taken (default: what BEFORE was trained on)")


def retention(options: Namespace) -> dict[str, Any]:
    from lit_meta.data.scenarios import scenario_for_seed
    from lit_meta.evaluation import retention as compare
    from lit_meta.evaluation.class_retention import COLUMNS

    before, experiment, seed = trained(options.before)
    after, _, _ = trained(options.after)
    benchmark = scenario_for_seed(options.scenario or experiment.scenario, seed, trusted=options.scenario is not None)
    report = compare(before, after, benchmark)
    caption = f"{report.sentence}; lost: right before and wrong after; taken for: the class of most of the lost samples"
    title = f"{options.before}, then {options.after}, on {benchmark.name}"
    table(title, COLUMNS, report.rows(), caption)
    return {"before": options.before, "after": options.after, "scenario": benchmark.name, "retention": report.to_dict()}

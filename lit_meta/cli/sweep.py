"""``lit-meta sweep``: hyperparameters chosen on validation data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, percent, progress, table
from lit_meta.cli.parsing import add_command, add_jobs


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "sweep",
        sweep,
        "choose hyperparameters on validation data of the first experiences",
        example="lit-meta sweep mlp.ewc_split-digits --run_dir runs/sweep",
    )
    parser.add_argument("config", help="a YAML file, or a name in configs/sweep/")
    parser.add_argument("--run_dir", metavar="DIR", help="where results go (default: runs/sweep-NAME)")
    parser.add_argument("--trials", type=int, help="how many settings to try, in all (default: the config's)")
    parser.add_argument("--resume", action="store_true", help="continue the sweep in DIR")
    add_jobs(parser)
    parser.add_argument("--accelerator", default="auto", help="Lightning's name of the device (default: auto)")


def sweep(options: Namespace) -> dict[str, Any]:
    from lit_meta.experiments.sweep import run_sweep
    from lit_meta.experiments.sweep_config import load_sweep

    described = load_sweep(options.config)
    if options.trials is not None:
        described = replace(described, trials=options.trials)
    run_dir = Path(options.run_dir or Path("runs") / f"sweep-{described.experiment.name}")
    with progress(described.trials, "sweep") as advance:
        facts = run_sweep(
            described,
            run_dir,
            resume=options.resume,
            accelerator=options.accelerator,
            jobs=options.jobs,
            cluster=options.cluster,
            on_trial=lambda number, accuracy: advance(f"sweep: trial {number}, {percent(accuracy)} %"),
        )
    ranked = sorted(facts["trials"], key=lambda trial: -trial["accuracy"])[:5]
    rows = [
        (percent(trial["accuracy"]), *(_short(trial["values"][path]) for path in described.space)) for trial in ranked
    ]
    table(
        f"sweep of {described.experiment.name}: the best of {len(facts['trials'])} settings",
        ("validation accuracy (%)", *described.space),
        rows,
        f"held-out training data of the first {described.experiences} experiences, {len(described.seeds)} seed(s); "
        "test data is never seen",
    )
    console().print(f"lit-meta run {facts['config']} takes the best", soft_wrap=True)
    return facts


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""``lit-meta run``: an experiment from its config into a run folder."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.cli.console import add_command, console, progress, table

if TYPE_CHECKING:
    from lightning import Callback

    from lit_meta.evaluation.accuracy import Protocol


def add(commands: Any) -> None:
    parser = add_command(commands, "run", run, "train an experiment's stream, over seeds, beside its bounds")
    parser.add_argument("config", help="a YAML file, or a name in configs/experiment/")
    parser.add_argument("--run_dir", metavar="DIR", help="where results go (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR after its last experience")
    parser.add_argument(
        "--learners", nargs="+", metavar="NAME", help="rule, naive, joint, or a control of the config (default: all)"
    )
    parser.add_argument("--record_weight_change", action="store_true", help="which synapses each experience changes")
    parser.add_argument(
        "--evaluate_every", type=int, metavar="STEPS", help="also test within experiences, for the stability gap"
    )
    parser.add_argument(
        "--stop_at_accuracy",
        type=float,
        metavar="A",
        help="end an experience once its own training samples reach this accuracy; max_epochs is then the most",
    )
    parser.add_argument("--accelerator", default="auto", help="Lightning's name of the device (default: auto)")
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="change the config: max_epochs=2 seeds=[0]",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from lit_meta.experiments.run import benchmarks_of, load_experiment, run_experiment
    from lit_meta.experiments.summary import percent
    from lit_meta.report.stream_figures import accuracy_matrices
    from lit_meta.utils.specs import label
    from lit_meta.utils.validation import require_one_of

    experiment = load_experiment(options.config, [f"--{change}" for change in options.overrides])
    run_dir = Path(options.run_dir or Path("runs") / experiment.name)
    learners = options.learners or experiment.learners
    for learner in learners:
        require_one_of("a learner", learner, experiment.learners)
    benchmarks = benchmarks_of(experiment)
    experiences = len(benchmarks[experiment.seeds[0]].train_stream)
    total = len(experiment.seeds) * sum(1 if learner == "joint" else experiences for learner in learners)
    with progress(total, experiment.name) as advance:
        report = run_experiment(
            experiment,
            run_dir,
            learners=learners,
            resume=options.resume,
            accelerator=options.accelerator,
            command=command_line(options, run_dir),
            callbacks=partial(recorders, options, experiment.protocol),
            on_experience=lambda learner, seed, index, row: advance(
                f"{experiment.name}: {learner}, seed {seed}, experience {index + 1}"
            ),
            benchmarks=benchmarks,
        )
    rows = []
    for learner in learners:
        found = report[learner]
        rows.append(
            (
                learner,
                percent(found["average_accuracy"]),
                percent(found["forgetting"]),
                f"{found['cost']['seconds']:.1f}",
                f"{found['cost']['state_bytes'] / 1024:.0f}",
            )
        )
    columns = (
        "learner",
        "average accuracy (%)",
        "forgetting (points)",
        "training (s)",
        "rule's memory (KiB)",
    )
    title = f"{experiment.name}: {label(experiment.scenario)}, protocol {experiment.protocol}"
    table(title, columns, rows, f"mean ± standard deviation over {len(experiment.seeds)} seed(s)")
    if "rule" in report:
        matrix = torch.tensor(report["rule"]["accuracy_matrix"])
        accuracy_matrices({experiment.name: matrix}).savefig(_figures(run_dir) / "accuracy_matrix.png", dpi=150)
    console().print(f"results are in {run_dir}", soft_wrap=True)
    return report


def recorders(
    options: argparse.Namespace, protocol: Protocol, learner: str, folder: Path, benchmark: Any
) -> list[Callback]:
    """The cost ledger, and the callbacks that the options ask for; the joint bound has no stream to record."""
    from lit_meta.callbacks import ContinualEvaluation, StopAtAccuracy, WeightChange
    from lit_meta.cost.ledger import CostLedger

    found: list[Callback] = [CostLedger()]
    if learner == "joint":
        return found
    if options.stop_at_accuracy is not None:
        found.append(StopAtAccuracy(options.stop_at_accuracy))
    if options.record_weight_change:
        found.append(WeightChange(folder=folder))
    if options.evaluate_every is not None:
        every = options.evaluate_every
        found.append(ContinualEvaluation(benchmark.test_stream, every_n_steps=every, protocol=protocol, folder=folder))
    return found


def command_line(options: argparse.Namespace, run_dir: Path) -> str:
    """The command that gives these results again."""
    parts = ["lit-meta", "run", options.config, "--run_dir", str(run_dir)]
    if options.learners:
        parts += ["--learners", *options.learners]
    if options.record_weight_change:
        parts += ["--record_weight_change"]
    if options.evaluate_every is not None:
        parts += ["--evaluate_every", str(options.evaluate_every)]
    if options.stop_at_accuracy is not None:
        parts += ["--stop_at_accuracy", str(options.stop_at_accuracy)]
    if options.overrides:
        parts += ["--set", *options.overrides]
    return shlex.join(parts)


def _figures(run_dir: Path) -> Path:
    folder = run_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

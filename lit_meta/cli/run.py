"""``lit-meta run``: an experiment from its config into a run folder."""

from __future__ import annotations

import sys
from argparse import SUPPRESS
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from jsonargparse import Namespace

from lit_meta.cli.console import console, experiment_progress, table
from lit_meta.cli.parsing import CommandParser, add_command, add_jobs, command_line

if TYPE_CHECKING:
    from lightning import Callback

    from lit_meta.data.benchmark import Benchmark
    from lit_meta.evaluation.accuracy import Protocol


# Options that affect only the device and the output, not the results.
_NO_PART_OF_RESULTS = {
    "json": None,
    "resume": None,
    "overwrite": None,
    "accelerator": None,
    "print_config": None,
    "jobs": None,
    "cluster": None,
}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "run",
        lambda options: run(parser, options),
        "train an experiment's stream, over seeds, beside its bounds",
        example="lit-meta run mlp.ewc_split-digits --rule.strength 50 --optimizer.init_args.lr 0.05 --seeds '[0, 1]'",
    )
    parser.usage = "lit-meta run CONFIG [options] [--KEY VALUE ...] [--KEY.PART VALUE ...]"
    parser.add_argument("experiment", nargs="?", metavar="CONFIG", help="a YAML file, or a name in configs/experiment/")
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="a YAML file, in place of CONFIG or after it: its keys take the place of those of CONFIG",
    )
    parser.add_argument("--print_config", action="store_true", help="print the whole config, as YAML, and end")
    parser.add_argument("--run_dir", metavar="DIR", help="where results go (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in DIR from its last checkpoint")
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh in a DIR that holds a run, and remove that"
    )
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
    parser.add_argument(
        "--without_ledger",
        action="store_true",
        help="do not count arithmetic and energy, which may take as long as steps of single samples do",
    )
    add_jobs(parser)
    parser.add_argument("--accelerator", default="auto", help="Lightning's name of the device (default: auto)")
    _add_settings(parser)


def _add_settings(parser: CommandParser) -> None:
    """Every key of an experiment as an option; the parser keeps them, in order, as settings."""
    from lit_meta.experiments.config import Experiment
    from lit_meta.utils.annotations import annotations_of, described

    group = parser.add_argument_group(
        "settings of the config, as YAML",
        "Deeper ones have a dot for each level (--network.hidden '[100]', --overrides.joint.max_epochs 5) and, in a list of "
        "rules, the position (--rule.0.strength 50).",
    )
    group.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="several at once: max_epochs=2 seeds=[0]",
    )
    for name, annotation in annotations_of(Experiment).items():
        literal = {"choices": get_args(annotation)} if get_origin(annotation) is Literal else {"metavar": "VALUE"}
        group.add_argument(f"--{name}", default=SUPPRESS, help=described(annotation), **literal)
    parser.settings = tuple(annotations_of(Experiment))


def run(parser: CommandParser, options: Namespace) -> dict[str, Any]:
    import torch
    import yaml

    from lit_meta.experiments.checks import check_specs
    from lit_meta.experiments.loading import load_experiment
    from lit_meta.experiments.run import benchmarks_of, run_experiment
    from lit_meta.experiments.run_folder import learned_before
    from lit_meta.experiments.summary import percent
    from lit_meta.report.stream_figures import accuracy_matrices
    from lit_meta.utils.specs import label
    from lit_meta.utils.validation import require_one_of

    named, *files = [*([options.experiment] if options.experiment else []), *(options.config or [])] or [None]
    if named is None:
        parser.error("a CONFIG is missing, such as mlp.ewc_split-digits or my.yaml, or --config FILE")
    experiment = load_experiment(named, options.set, files=files)
    if options.print_config:
        check_specs(experiment)
        sys.stdout.write(yaml.safe_dump(experiment.to_dict(), sort_keys=False))
        return experiment.to_dict()
    run_dir = Path(options.run_dir or Path("runs") / experiment.name)
    learners = options.learners or experiment.learners
    for learner in learners:
        require_one_of("a learner", learner, experiment.learners)
    check_specs(experiment)
    benchmarks = benchmarks_of(experiment)
    learned = learned_before(experiment, run_dir, learners) if options.resume else 0
    with experiment_progress(experiment, benchmarks[experiment.seeds[0]], learners, learned=learned) as told:
        report = run_experiment(
            experiment,
            run_dir,
            learners=learners,
            resume=options.resume,
            overwrite=options.overwrite,
            accelerator=options.accelerator,
            command=command_line(parser, options, {**_NO_PART_OF_RESULTS, "run_dir": str(run_dir)}),
            callbacks=partial(recorders, options, experiment.protocol),
            on_experience=told,
            benchmarks=benchmarks,
            jobs=options.jobs,
            cluster=options.cluster,
        )
    rows = []
    for learner in learners:
        summaries = report[learner]
        rows.append(
            (
                learner,
                percent(summaries["average_accuracy"]),
                forgotten(summaries, benchmarks[experiment.seeds[0]]),
                f"{summaries['cost']['seconds']:.1f}",
                f"{summaries['cost']['state_bytes'] / 1024:.0f}",
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


def forgotten(summaries: dict[str, Any], benchmark: Benchmark) -> str:
    """Forgetting in points, or that most experiences were never learned, so that there was nothing to forget."""
    import torch

    from lit_meta.data.benchmark import stream_classes
    from lit_meta.experiments.summary import percent
    from lit_meta.functional.chance import chance_level, learned_little, never_learned

    matrix = torch.tensor(summaries["accuracy_matrix"])
    classes = stream_classes(benchmark.test_stream)
    if matrix.dim() == 2 and matrix.shape[0] == matrix.shape[1] == len(classes) > 1:
        never = never_learned(matrix.diagonal(), chance_level(classes))
        if learned_little(never):
            return f"never learned ({int(never.sum())} of {len(never)})"
    return percent(summaries["forgetting"])


def recorders(
    options: Namespace, protocol: Protocol, learner: str, folder: Path, benchmark: Benchmark
) -> list[Callback]:
    """The cost ledger and the callbacks that the options ask for; the joint bound has no stream to record."""
    from lit_meta.callbacks import ContinualEvaluation, StopAtAccuracy, WeightChange
    from lit_meta.cost.ledger import CostLedger

    callbacks: list[Callback] = [] if options.without_ledger else [CostLedger()]
    if learner == "joint":
        return callbacks
    if options.stop_at_accuracy is not None:
        callbacks.append(StopAtAccuracy(options.stop_at_accuracy))
    if options.record_weight_change:
        callbacks.append(WeightChange(folder=folder))
    if options.evaluate_every is not None:
        every = options.evaluate_every
        callbacks.append(
            ContinualEvaluation(benchmark.test_stream, every_n_steps=every, protocol=protocol, folder=folder)
        )
    return callbacks


def _figures(run_dir: Path) -> Path:
    folder = run_dir / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

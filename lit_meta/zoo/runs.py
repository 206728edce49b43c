"""Entries made from finished runs, and made again from their own experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_meta.core.memory_codec import decode_numbered
from lit_meta.data.benchmark import Benchmark
from lit_meta.data.module import experience_tensors
from lit_meta.data.registry import scenario_spec
from lit_meta.data.scenarios import scenario_for_seed
from lit_meta.data.sources import load_source
from lit_meta.experiments.config import LEARNERS, Experiment, is_classification
from lit_meta.experiments.run import build_module, run_experiment
from lit_meta.experiments.run_folder import SNAPSHOTS_FOLDER
from lit_meta.rules import build_rule
from lit_meta.utils.io import load_json, load_tensors, load_text, load_yaml
from lit_meta.utils.paths import own_zoo_folder, zoo_folder
from lit_meta.utils.specs import label
from lit_meta.zoo.continuation import continue_learning
from lit_meta.zoo.data_facts import provenance, source_spec, transform_of
from lit_meta.zoo.layout import MODEL, RULE
from lit_meta.zoo.saving import WEIGHTS_LICENCE, write_entry
from lit_meta.zoo.schema import LEARNER


def add(run_dir: str | Path, *, zoo: Path | None = None) -> Path:
    """Makes a zoo entry from a finished run; replaces the entry of the same name.

    Args:
        run_dir: the run's folder.
        zoo: the folder for the entry; None takes the zoo of a checkout, or else a folder in the user's home, which `load` and
            the other functions search too (`lit_meta.utils.paths.own_zoo_folder`).

    Returns:
        The entry's folder.

    Raises:
        FileNotFoundError: the run is not finished, or its data are absent.
        ValueError: a learner is missing that is a bound for the rule; or the rule or the scenario needs tasks at test time,
            while the network of an entry is tested without them.
    """
    run = Path(run_dir)
    for file in (MODEL, RULE, "metrics.json", "config.yaml", "accuracy_matrix.csv"):
        if not (run / file).is_file():
            raise FileNotFoundError(f"{run / file} is missing: only a finished run becomes a zoo entry")
    experiment = Experiment.from_dict(load_yaml(run / "config.yaml"))
    check_becomes_entry(experiment, str(run))
    metrics = load_json(run / "metrics.json")
    # If all classes are in one experience, naive training is the joint bound.
    needed = LEARNERS[:2] if is_classification(experiment.to_dict()) else LEARNERS
    absent = [learner for learner in needed if learner not in metrics]
    if absent:
        raise ValueError(
            f"{run} has no {' and no '.join(absent)} learner: an entry shows the rule between its bounds, so run them as well "
            "(lit-meta run --resume)"
        )
    results: dict[str, Any] = {"seed_average_accuracy": metrics["rule"]["average_accuracy"]["values"][0]}
    for learner in (*needed, *(control for control in experiment.controls if control in metrics)):
        results[learner] = {q: metrics[learner][q] for q in ("average_accuracy", "forgetting", "cost")}
    try:
        rows = [[float(v) for v in row.split(",")] for row in load_text(run / "accuracy_matrix.csv").split()]
    except ValueError as error:
        raise ValueError(f"{run / 'accuracy_matrix.csv'} is damaged: {error}") from None
    target = _target(experiment.name) if zoo is None else zoo / experiment.name
    card = {
        "name": experiment.name,
        "command": metrics["command"],
        "protocol": experiment.protocol,
        "seed": experiment.seeds[0],
        "experiment": experiment.to_dict(),
        "results": results,
        "accuracy_matrix": rows,
        "versions": metrics["versions"],
    }
    steps = [load_tensors(path) for path in sorted((run / SNAPSHOTS_FOLDER).glob("*.safetensors"))]
    return entry_of_experiment(
        card, load_tensors(run / MODEL), load_tensors(run / RULE), target, steps if len(steps) == len(rows) else ()
    )


def entry_of_experiment(
    card: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    folder: Path,
    snapshots: Sequence[Mapping[str, Tensor]] = (),
) -> Path:
    """Writes an entry whose card knows its experiment; the rest is taken from the data."""
    experiment = Experiment.from_dict(card["experiment"])
    part = experiment.for_learner("rule")
    benchmark = scenario_for_seed(part.scenario, card["seed"], trusted=False)
    samples = [experience_tensors(experience)[0] for experience in benchmark.test_stream]
    shown = _first_of_each(samples)
    module = build_module(part, card["seed"], trusted=False)
    module.network.load_state_dict(dict(weights))
    rules = module.plasticity.rules if module.plasticity is not None else ()
    for rule, tensors in zip(rules, decode_numbered(memory, len(rules)), strict=True):
        rule.state.load_state_dict(tensors)
    continuation = continue_learning(module, part, benchmark, card["seed"])
    spec = source_spec(part.scenario)
    source = None if spec is None or not spec.name else load_source({"name": spec.name, **spec.arguments})
    transform = None if source is None else transform_of(part.scenario, source)
    if source is not None and label(scenario_spec(part.scenario).arguments.get("source", "")) == "features":
        # A backbone takes images as well as their features: the entry is shown with images.
        shown = source.test_x[[int((source.test_y == y).nonzero()[0]) for y in source.test_y.unique()[:8]]]
    content = {
        "name": card["name"],
        **{key: getattr(part, key) for key in LEARNER},
        "seed": card["seed"],
        "class_names": list(benchmark.class_names),
        "note": experiment.note,
        **{key: card[key] for key in ("experiment", "protocol", "command", "results", "accuracy_matrix")},
        "continuation": continuation.to_dict(),
        "provenance": provenance(part.scenario, WEIGHTS_LICENCE, module.network),
        "versions": card["versions"],
    }
    return write_entry(folder, content, weights, memory, samples=shown, transform=transform, snapshots=snapshots)


def remake(
    experiment: Experiment,
    run_dir: str | Path,
    *,
    zoo: Path | None = None,
    accelerator: str = "cpu",
    command: str | None = None,
    on_experience: Callable[[str, int, int, Tensor], None] | None = None,
    benchmarks: Mapping[int, Benchmark] | None = None,
) -> Path:
    """Trains every learner of an experiment with every seed, and makes an entry of it: from a config to an entry in one step.

    A run that was interrupted goes on where it stopped.

    Args:
        experiment: of a config (`lit_meta.experiments.load_experiment`), or that of an entry's card (`experiment_of`).
        run_dir: the folder of the run.
        zoo: as of `add`.
        accelerator: Lightning's name of the device.
        command: that makes it again, for the card.
        on_experience: called after each experience with learner, seed, index and accuracies.
        benchmarks: by seed, if the caller has them.

    Raises:
        ValueError: as of `add`; what can be known before training is checked before.
    """
    from lit_meta.cost.ledger import CostLedger

    check_becomes_entry(experiment, experiment.name)
    if zoo is None:
        _target(experiment.name)
    run_experiment(
        experiment,
        Path(run_dir),
        resume=True,
        accelerator=accelerator,
        command=command or f"lit-meta zoo remake {experiment.name}",
        callbacks=lambda learner, folder, benchmark: [CostLedger()],
        on_experience=on_experience,
        benchmarks=benchmarks,
    )
    return add(run_dir, zoo=zoo)


def experiment_of(card: Mapping[str, Any]) -> Experiment:
    """The experiment that an entry was made by.

    Raises:
        ValueError: it was saved without a run.
    """
    if card["experiment"] is None:
        raise ValueError(f"{card['name']} was saved from Python, without an experiment that could be run again")
    return Experiment.from_dict(card["experiment"])


def check_becomes_entry(experiment: Experiment, what: str) -> None:
    """Checks that a network of an experiment can be tested without its rule and without tasks.

    Raises:
        ValueError: it cannot.
    """
    if experiment.tasks_told:
        raise ValueError(
            f"{what} uses the task of every test sample, and the network of a zoo entry is tested without tasks"
        )
    for spec in [experiment.rule] if isinstance(experiment.rule, dict) else experiment.rule or []:
        if build_rule(spec).needs_tasks:
            raise ValueError(
                f"{what} learned with {label(spec)}, which needs the task of every sample: the network of a zoo entry is "
                "tested without its rule, and would run ungated"
            )


def _first_of_each(samples: list[Tensor]) -> Tensor:
    import torch

    return torch.cat([x[:1] for x in samples]) if len(samples) > 1 else samples[0][:8]


def _target(name: str) -> Path:
    """The folder for a new entry of the user."""
    if own_zoo_folder() != zoo_folder() and (zoo_folder() / name).exists():
        raise ValueError(
            f"{name!r} is an entry included in lit_meta, which would be loaded instead of this one: give the experiment "
            "another name, or the entry another zoo"
        )
    return own_zoo_folder() / name

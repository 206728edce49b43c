"""Running an experiment: a rule on a stream, over seeds, with naive fine-tuning and the joint upper bound."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from lit_meta._version import __version__
from lit_meta.data.benchmark import Benchmark
from lit_meta.experiments.checks import check_specs, key_named
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.loading import load_experiment
from lit_meta.experiments.online import summarize_online
from lit_meta.experiments.parallel import check_jobs
from lit_meta.experiments.run_folder import check_config, unfinished, write_config
from lit_meta.experiments.summary import summary
from lit_meta.experiments.trial import MakeCallbacks, try_learners
from lit_meta.experiments.units import Outcome, Unit, run_units
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks import build_network
from lit_meta.rules.registry import build_rules
from lit_meta.streams.fit import StreamResult, fit_stream
from lit_meta.utils.io import save_json
from lit_meta.utils.locks import owned_folder
from lit_meta.utils.modes import matmul_precision
from lit_meta.utils.specs import Specification

__all__ = [
    "Experiment",
    "benchmarks_of",
    "build_module",
    "build_rules",
    "load_experiment",
    "network_for_seed",
    "run_experiment",
    "run_seed",
    "summarize",
    "versions",
]


def network_for_seed(spec: Specification, seed: int, *, trusted: bool = True) -> nn.Module:
    """A network whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(spec, trusted=trusted)


def build_module(experiment: Experiment, seed: int, *, trusted: bool = True) -> MetaplasticModule:
    """The module of an experiment with fresh weights.

    Args:
        experiment: its network, rule, loss and optimizer are built.
        seed: of the weights.
        trusted: whether the experiment is the user's own, and may import what it names; see `lit_meta.utils.specs`.
    """
    # First, so that an experiment that names something it must not is refused before anything is built.
    optimizer = optimizer_factory(experiment.optimizer, trusted=trusted)
    rule = build_rules(experiment.rule, trusted=trusted) or None  # An empty list is plain training.
    network = network_for_seed(experiment.network, seed, trusted=trusted)
    return MetaplasticModule(network, rule=rule, loss=experiment.loss, optimizer=optimizer)


def benchmarks_of(experiment: Experiment) -> dict[int, Benchmark]:
    """The benchmark of every seed; all learners of a seed learn from the same one.

    Raises:
        KeyError: an unknown scenario.
        FileNotFoundError: the data is absent.
    """
    from lit_meta.data.scenarios import scenario_for_seed

    with key_named("scenario", experiment.scenario):
        return {seed: scenario_for_seed(experiment.scenario, seed) for seed in experiment.seeds}


def run_seed(
    experiment: Experiment,
    learner: str,
    seed: int,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    on_experience: Callable[[int, torch.Tensor], None] | None = None,
    callbacks: Callable[[Benchmark], Sequence[L.Callback]] | None = None,
    benchmark: Benchmark | None = None,
    after_experience: Callable[[int, nn.Module], None] | None = None,
) -> tuple[StreamResult, MetaplasticModule]:
    """Runs one learner of an experiment with one seed; ``callbacks`` builds the Trainer's callbacks for the benchmark.

    ``benchmark`` is the experiment's for that seed, if the caller has built it already, see `benchmarks_of`.
    ``after_experience`` is called with the index of each experience that was learned, and with the network.
    """
    from lit_meta.data.replay import buffer_bytes, with_replay
    from lit_meta.data.scenarios import scenario_for_seed
    from lit_meta.data.tensors import joint

    part = experiment.for_learner(learner)
    if benchmark is None:
        benchmark = scenario_for_seed(part.scenario, seed)
    stream = joint(benchmark) if learner == "joint" else benchmark
    if part.replay:
        stream = with_replay(stream, part.replay, seed=seed)
    module = build_module(part, seed)

    def learned(index: int, row: torch.Tensor) -> None:
        if after_experience is not None:
            after_experience(index, module.network)
        if on_experience is not None:
            on_experience(index, row)

    with matmul_precision(part.matmul_precision):
        result = fit_stream(
            module,
            stream,
            max_epochs=part.max_epochs,
            batch_size=part.batch_size,
            seed=seed,
            protocol=part.protocol,
            accelerator=accelerator,
            run_dir=run_dir,
            resume=resume,
            on_experience=learned,
            callbacks=() if callbacks is None else callbacks(benchmark),
        )
    if part.replay:
        result.cost.state_bytes = (result.cost.state_bytes or 0) + buffer_bytes(benchmark, part.replay)
    return result, module


def summarize(results: Sequence[StreamResult]) -> dict[str, Any]:
    """Results over seeds as plain numbers; the matrix is the mean over seeds."""
    quantities = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer")
    summaries: dict[str, Any] = {q: summary([getattr(r, q) for r in results]) for q in quantities}
    mean = torch.stack([r.accuracy_matrix for r in results]).mean(0)
    summaries["accuracy_matrix"] = [[round(v, 6) for v in row] for row in mean.tolist()]
    summaries["cost"] = {key: statistics.fmean(r.cost[key] for r in results) for key in results[0].cost}
    return summaries


def versions() -> dict[str, str]:
    """Versions of the libraries that results depend on."""
    # Its own is no matter of installed packages: a copy on the path, as on a cluster, has none.
    return {"lit-meta": __version__} | {name: version(name) for name in ("torch", "lightning", "avalanche-lib")}


def run_experiment(
    experiment: Experiment,
    run_dir: Path,
    *,
    learners: Sequence[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accelerator: str = "auto",
    command: str = "",
    on_experience: Callable[[str, int, int, torch.Tensor], None] | None = None,
    callbacks: MakeCallbacks | None = None,
    benchmarks: Mapping[int, Benchmark] | None = None,
    jobs: int = 1,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Runs learners (by default all) with every seed into a run folder.

    The folder holds ``config.yaml``, ``metrics.json``, ``accuracy_matrix.csv`` and, from the first seed, the network and
    the rules' memory. ``callbacks`` builds the callbacks of one learner and seed from the learner, the folder of the seed and
    the benchmark. ``benchmarks`` are those of `benchmarks_of`, if the caller has them.

    Learners and seeds are independent: ``jobs`` of them run side by side, each in a process of its own with its share of the
    threads, or on the Dask cluster whose scheduler is at the address ``cluster``. Results are those of a run with one job and
    as many threads a job, bit for bit. ``on_experience`` is called in this process in any case.

    This process owns the folder while the run lasts, and with it those of all learners and seeds, whichever process runs them.
    ``overwrite`` starts afresh in a folder that holds a run, which is removed once everything has been checked.

    Everything is checked before anything is written: names, arguments and types (`check_specs`), the data, and one batch of
    every learner that has not finished (`try_learners`). A run that is refused leaves nothing behind.

    Returns:
        The content of ``metrics.json``.

    Raises:
        FileExistsError: the folder holds a run, and neither ``resume`` nor ``overwrite`` is set.
        KeyError, RuntimeError, TypeError, ValueError: the experiment cannot run, and the message begins with the key that is
            wrong; the folder holds another run; or another process owns it.
    """
    check_jobs(jobs, cluster)
    check_specs(experiment)
    if benchmarks is None:
        benchmarks = benchmarks_of(experiment)
    check_config(experiment, run_dir, resume=resume, overwrite=overwrite)
    waiting = list(learners or experiment.learners) if overwrite else unfinished(experiment, run_dir, learners)
    try_learners(experiment, benchmarks, waiting, accelerator=accelerator, callbacks=callbacks)
    units = units_of(
        experiment, run_dir, learners=learners, resume=resume, accelerator=accelerator, callbacks=callbacks
    )

    def progress(unit: Unit, index: int, row: torch.Tensor) -> None:
        if on_experience is not None:
            on_experience(unit.learner, unit.seed, index, row)

    with owned_folder(run_dir):
        write_config(experiment, run_dir, resume=resume, overwrite=overwrite)
        outcomes = run_units(units, jobs=jobs, cluster=cluster, on_experience=progress, benchmarks=benchmarks)
        return write_report(experiment, run_dir, units, outcomes, command=command)


def units_of(
    experiment: Experiment,
    run_dir: Path,
    *,
    learners: Sequence[str] | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    callbacks: MakeCallbacks | None = None,
) -> list[Unit]:
    """The parts of a run, each of one learner and one seed; arguments as of `run_experiment`."""
    return [
        Unit(experiment, learner, seed, run_dir, resume, accelerator, callbacks)
        for learner in learners or experiment.learners
        for seed in experiment.seeds
    ]


def write_report(
    experiment: Experiment, run_dir: Path, units: Sequence[Unit], outcomes: Sequence[Outcome], *, command: str = ""
) -> dict[str, Any]:
    """Writes ``metrics.json`` of a whole run from the outcomes of its units; returns its content."""
    report: dict[str, Any] = {
        "name": experiment.name,
        "command": command,
        "note": experiment.note,
        "scenario": experiment.scenario,
        "protocol": experiment.protocol,
        "matmul_precision": experiment.matmul_precision,
        "seeds": experiment.seeds,
        "versions": versions(),
    }
    by_learner: dict[str, list[Outcome]] = {}
    for unit, outcome in zip(units, outcomes, strict=True):
        by_learner.setdefault(unit.learner, []).append(outcome)
    for learner, group in by_learner.items():
        report[learner] = summarize([outcome.result for outcome in group])
        if records := [outcome.online for outcome in group if outcome.online is not None]:
            report[learner] |= summarize_online(records)
        batchings = [outcome.batching for outcome in group if outcome.batching is not None]
        if batchings:
            report[learner]["accuracy_by_batching"] = {
                batching: summary([by_batching[batching] for by_batching in batchings]) for batching in batchings[0]
            }
    save_json(run_dir / "metrics.json", report)
    return report

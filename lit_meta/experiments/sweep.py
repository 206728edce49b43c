"""Hyperparameters chosen on validation data of a stream's first experiences, with Optuna."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lit_meta.core.errors import DivergedError
from lit_meta.data.benchmark import Benchmark, BenchmarkView
from lit_meta.experiments.parallel import check_jobs, side_by_side
from lit_meta.experiments.run import Experiment, build_module
from lit_meta.experiments.sweep_config import Dimension, Sweep
from lit_meta.streams.fit import fit_stream
from lit_meta.utils.io import load_yaml, save_json, save_yaml
from lit_meta.utils.locks import owned_folder
from lit_meta.utils.modes import matmul_precision

_RANDOM_TRIALS = 8  # random settings before the search starts to use previous results


def validation_benchmark(experiment: Experiment, *, seed: int, experiences: int, validation: float) -> BenchmarkView:
    """A stream's first experiences, tested on held-out training data; its test stream is not used.

    Args:
        experiment: the experiment, whose scenario is used.
        seed: of class order and of the held-out samples.
        experiences: number of experiences.
        validation: the fraction of the training data that is held out.

    Returns:
        A benchmark for `lit_meta.fit_stream` with the validation stream as its ``test_stream``.

    Raises:
        ValueError: the stream is shorter.
    """
    from lit_meta.data import scenario

    benchmark = scenario(experiment.scenario, seed=seed, validation=validation)
    if len(benchmark.train_stream) < experiences:
        raise ValueError(
            f"the sweep asks for the first {experiences} experiences, and {benchmark.name} has {len(benchmark.train_stream)}"
        )
    return BenchmarkView(
        name=f"{benchmark.name}, the first {experiences} on validation data",
        train_stream=list(benchmark.train_stream)[:experiences],
        test_stream=list(benchmark.validation_stream)[:experiences],
        form=benchmark.form,
        classes=benchmark.classes,
    )


def run_sweep(
    sweep: Sweep,
    run_dir: Path,
    *,
    resume: bool = False,
    accelerator: str = "auto",
    on_trial: Callable[[int, float], None] | None = None,
    jobs: int = 1,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Tries settings, and writes the best as an experiment.

    The folder holds ``sweep.yaml`` (resolved), ``study.db`` (Optuna's), ``trials.json`` and ``best.yaml``, which
    ``lit-meta run`` takes. A resumed sweep makes the same trials as an uninterrupted one. A setting whose network diverges
    counts as accuracy 0.

    Args:
        sweep: what to search.
        run_dir: the folder.
        resume: continue the sweep in the folder, up to ``sweep.trials`` in total.
        accelerator: Lightning's name of the device.
        on_trial: called after each trial with its number, from 1, and its validation accuracy.
        jobs: fits that run side by side, in processes of their own: the seeds of a trial and, where there are more jobs than
            seeds, several trials, which then do not see each other's results. Up to as many jobs as seeds the trials are those
            of one job.
        cluster: the address of a Dask scheduler to run them on.

    Returns:
        ``best`` (values, accuracy), ``trials`` (values and accuracies by seed), ``config`` (path of best.yaml).

    Raises:
        RuntimeError: Optuna is not installed, or another process owns the folder.
        FileExistsError: the folder holds another sweep and ``resume`` is not set.
        ValueError: the folder holds a sweep of other settings.
    """
    optuna = _optuna()
    check_jobs(jobs, cluster)
    _benchmark.cache_clear()
    for seed in sweep.seeds:  # Before anything is written.
        _benchmark_of(sweep, seed)
    with owned_folder(run_dir), _quiet(optuna):
        _write_config(sweep, run_dir, resume=resume)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(run_dir / 'study.db').resolve()}")
        study = optuna.create_study(
            storage=storage, study_name=sweep.experiment.name, direction="maximize", load_if_exists=True
        )
        complete, running, failed = (getattr(optuna.trial.TrialState, s) for s in ("COMPLETE", "RUNNING", "FAIL"))
        together = max(1, jobs // len(sweep.seeds))
        while (done := len(study.get_trials(states=(complete,)))) < sweep.trials:
            batch = _stopped(study, sweep, running, failed)
            # Trials of a batch see the results of earlier batches only. Each has a sampler of its own, so that its seed and
            # these results determine it, not where a run stopped.
            for number in range(done + len(batch), min(done - done % together + together, sweep.trials)):
                study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + number, n_startup_trials=_RANDOM_TRIALS)
                trial = study.ask()
                for name, dimension in sweep.space.items():
                    _suggest(trial, name, dimension)
                batch.append(study.trials[trial.number])
            calls = [
                partial(_accuracy, sweep, _values(sweep, trial.params), seed, accelerator)
                for trial in batch
                for seed in sweep.seeds
            ]
            found = side_by_side(calls, jobs=jobs, cluster=cluster)
            for position, trial in enumerate(batch):
                accuracies = found[position * len(sweep.seeds) : (position + 1) * len(sweep.seeds)]
                storage.set_trial_user_attr(trial._trial_id, "accuracies", accuracies)
                study.tell(trial.number, statistics.fmean(accuracies))
                if on_trial is not None:
                    on_trial(done + position + 1, statistics.fmean(accuracies))
        trials = study.get_trials(states=(complete,))
        storage.engine.dispose()
        records = [
            {
                "values": _values(sweep, trial.params),
                "accuracy": trial.value,
                **trial.user_attrs,
            }
            for trial in trials
        ]
        best = max(records, key=lambda record: record["accuracy"])
        save_json(run_dir / "trials.json", {"trials": records})
        path = run_dir / "best.yaml"
        save_yaml(path, best_experiment(sweep, best, len(records)).to_dict())
        return {"best": best, "trials": records, "config": str(path)}


def best_experiment(sweep: Sweep, best: dict[str, Any], trials: int) -> Experiment:
    """The experiment with the best values, and a note on how they were chosen."""
    experiment = sweep.with_values(best["values"])
    chosen = ", ".join(
        f"{path} = {value:.4g}" if isinstance(value, float) else f"{path} = {value}"
        for path, value in best["values"].items()
    )
    experiment.note = (
        f"{experiment.note.strip()} For {sweep.learner}, {chosen} was the best of {trials} settings, with "
        f"{100 * best['accuracy']:.1f} % on validation data ({sweep.validation:g} of the training data) of the first "
        f"{sweep.experiences} experiences, seeds {', '.join(map(str, sweep.seeds))}; no test data was seen."
    ).strip()
    return experiment


def _stopped(study: Any, sweep: Sweep, running: Any, failed: Any) -> list[Any]:
    """Trials that an earlier run began and did not finish: they are made again with the same settings."""
    whole = []
    for trial in study.get_trials(states=(running,)):
        if trial.params.keys() == sweep.space.keys():
            whole.append(trial)
        else:
            study.tell(trial.number, state=failed)
    return whole


def _values(sweep: Sweep, suggested: Mapping[str, Any]) -> dict[str, Any]:
    return {path: dimension.value(suggested[path]) for path, dimension in sweep.space.items()}


def _benchmark_of(sweep: Sweep, seed: int) -> Benchmark:
    described = json.dumps({**sweep.experiment.to_dict(), "overrides": {}, "controls": {}}, sort_keys=True)
    return _benchmark(described, seed, sweep.experiences, sweep.validation)


@lru_cache(maxsize=8)
def _benchmark(experiment: str, seed: int, experiences: int, validation: float) -> Benchmark:
    """The benchmark of a seed, built once in each process."""
    return validation_benchmark(
        Experiment.from_dict(json.loads(experiment)), seed=seed, experiences=experiences, validation=validation
    )


def _accuracy(sweep: Sweep, values: dict[str, Any], seed: int, accelerator: str) -> float:
    benchmark = _benchmark_of(sweep, seed)
    part = sweep.with_values(values).for_learner(sweep.learner)
    try:
        with matmul_precision(part.matmul_precision):
            result = fit_stream(
                build_module(part, seed),
                benchmark,
                max_epochs=part.max_epochs,
                batch_size=part.batch_size,
                seed=seed,
                protocol=part.protocol,
                accelerator=accelerator,
            )
    except DivergedError:
        return 0.0
    return result.average_accuracy


def _suggest(trial: Any, path: str, dimension: Dimension) -> Any:
    if dimension.choices:
        return trial.suggest_categorical(path, tuple(range(len(dimension.choices))))
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return trial.suggest_int(path, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(path, dimension.low, dimension.high, log=dimension.log)


def _write_config(sweep: Sweep, run_dir: Path, *, resume: bool) -> None:
    path = run_dir / "sweep.yaml"
    described = sweep.to_dict()
    if path.is_file():
        if not resume:
            raise FileExistsError(
                f"{run_dir} already holds a sweep: choose another run_dir, or continue it with --resume"
            )
        saved = load_yaml(path)
        # A sweep may be resumed for more trials than before.
        if {**saved, "trials": 0} != {**described, "trials": 0}:
            raise ValueError(f"{path} is of another sweep: one can only be resumed with the same settings")
        if saved == described:
            return
    save_yaml(path, described)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise RuntimeError(
            "a sweep needs Optuna, which is not installed: pip install 'lit-meta[tune]', or pip install optuna"
        ) from None
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Silences Optuna's line for each trial; the caller reports trials itself."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)

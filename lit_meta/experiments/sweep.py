"""Hyperparameters chosen on validation data of a stream's first experiences, with Optuna."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lit_meta.core.errors import DivergedError
from lit_meta.data.benchmark import Benchmark, BenchmarkView
from lit_meta.experiments.run import Experiment, build_module
from lit_meta.experiments.sweep_config import Dimension, Sweep
from lit_meta.streams.fit import fit_stream
from lit_meta.utils.io import load_yaml, save_json
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
) -> dict[str, Any]:
    """Tries settings one after another, and writes the best as an experiment.

    The folder holds ``sweep.yaml`` (resolved), ``study.db`` (Optuna's), ``trials.json`` and ``best.yaml``, which
    ``lit-meta run`` takes. A resumed sweep makes the same trials as an uninterrupted one. A setting whose network diverges
    counts as accuracy 0.

    Args:
        sweep: what to search.
        run_dir: the folder.
        resume: continue the sweep in the folder, up to ``sweep.trials`` in total.
        accelerator: Lightning's name of the device.
        on_trial: called after each trial with its number, from 1, and its validation accuracy.

    Returns:
        ``best`` (values, accuracy), ``trials`` (values and accuracies by seed), ``config`` (path of best.yaml).

    Raises:
        RuntimeError: Optuna is not installed.
        FileExistsError: the folder holds another sweep and ``resume`` is not set.
        ValueError: the folder holds a sweep of other settings.
    """
    optuna = _optuna()
    _write_config(sweep, run_dir, resume=resume)
    benchmarks = {
        seed: validation_benchmark(
            sweep.experiment, seed=seed, experiences=sweep.experiences, validation=sweep.validation
        )
        for seed in sweep.seeds
    }
    with _quiet(optuna):
        storage = optuna.storages.RDBStorage(f"sqlite:///{(run_dir / 'study.db').resolve()}")
        study = optuna.create_study(
            storage=storage, study_name=sweep.experiment.name, direction="maximize", load_if_exists=True
        )
        complete, running, failed = (getattr(optuna.trial.TrialState, s) for s in ("COMPLETE", "RUNNING", "FAIL"))
        for stopped in study.get_trials(states=(running,)):
            study.tell(stopped.number, state=failed)
        while (done := len(study.get_trials(states=(complete,)))) < sweep.trials:
            # A new sampler for each trial, so that its seed and the previous trials determine it, not where a run stopped.
            study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + done, n_startup_trials=_RANDOM_TRIALS)
            trial = study.ask()
            values = {
                path: dimension.value(_suggest(trial, path, dimension)) for path, dimension in sweep.space.items()
            }
            accuracies = [_accuracy(sweep, values, seed, benchmarks[seed], accelerator) for seed in sweep.seeds]
            trial.set_user_attr("accuracies", accuracies)
            study.tell(trial, statistics.fmean(accuracies))
            if on_trial is not None:
                on_trial(done + 1, statistics.fmean(accuracies))
        trials = study.get_trials(states=(complete,))
        storage.engine.dispose()
    records = [
        {
            "values": {path: dimension.value(trial.params[path]) for path, dimension in sweep.space.items()},
            "accuracy": trial.value,
            **trial.user_attrs,
        }
        for trial in trials
    ]
    best = max(records, key=lambda record: record["accuracy"])
    save_json(run_dir / "trials.json", {"trials": records})
    path = run_dir / "best.yaml"
    path.write_text(yaml.safe_dump(best_experiment(sweep, best, len(records)).to_dict(), sort_keys=False))
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


def _accuracy(sweep: Sweep, values: dict[str, Any], seed: int, benchmark: Benchmark, accelerator: str) -> float:
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
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(described, sort_keys=False))


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

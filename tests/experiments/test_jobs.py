"""Learners and seeds side by side, in processes and on a Dask cluster."""

from __future__ import annotations

import json
import os
import time

import pytest

from lit_meta.cli import main
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.parallel import check_jobs, side_by_side
from lit_meta.experiments.run import run_experiment
from lit_meta.experiments.sweep import run_sweep
from lit_meta.experiments.sweep_config import Dimension, Sweep

EXPERIMENT = Experiment(
    name="parallel",
    scenario={"name": "split-digits", "experiences": 2},
    network={"name": "mlp", "inputs": 64, "hidden": [8], "classes": 10},
    rule="mesu",
    seeds=[0, 1],
    batching=True,
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, run_experiment(EXPERIMENT, folder, learners=["rule", "naive"], accelerator="cpu")


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    ) as local:
        yield local.scheduler_address


def same(first, second):
    """Whether two reports agree in everything but times."""
    return json.dumps(untimed(first)) == json.dumps(untimed(second))


def untimed(report):
    if isinstance(report, dict):
        return {key: untimed(value) for key, value in report.items() if key not in ("seconds", "command")}
    return report


def check(folder, alone, **where):
    """Runs with two jobs, and compares with the run without; returns the report."""
    seen = []
    report = run_experiment(
        EXPERIMENT,
        folder,
        learners=["rule", "naive"],
        accelerator="cpu",
        jobs=2,
        on_experience=lambda learner, seed, index, row: seen.append((learner, seed, index)),
        **where,
    )
    assert same(report, alone[1])
    for name in ("model.safetensors", "rule.safetensors", "accuracy_matrix.csv", "config.yaml"):
        assert (folder / name).read_bytes() == (alone[0] / name).read_bytes()
    expected = [(learner, seed, index) for learner in ("naive", "rule") for seed in (0, 1) for index in (0, 1)]
    assert sorted(seen) == expected
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in alone[0].iterdir())
    return report


def test_two_processes_find_what_one_finds_and_tell_of_every_experience(tmp_path, alone):
    report = check(tmp_path / "run", alone)
    again = run_experiment(
        EXPERIMENT, tmp_path / "run", learners=["rule", "naive"], accelerator="cpu", jobs=2, resume=True
    )
    assert same(again, report)


def test_a_dask_cluster_finds_the_same(tmp_path, alone, cluster):
    check(tmp_path / "run", alone, cluster=cluster)


def test_an_error_in_a_process_says_whose_it_is(tmp_path, monkeypatch, cluster):
    wide = Experiment.from_dict({**EXPERIMENT.to_dict(), "controls": {"wide": {"network": {"inputs": 63}}}})
    monkeypatch.setattr("lit_meta.experiments.run.try_learners", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"controls.wide: seed \d: expected a batch"):
        run_experiment(wide, tmp_path / "run", learners=["wide"], accelerator="cpu", jobs=2, cluster=cluster)
    assert not (tmp_path / "run" / ".progress").exists()


@pytest.fixture(scope="module")
def sweep():
    space = {"optimizer.init_args.lr": Dimension(low=0.01, high=1.0, log=True)}
    experiment = Experiment.from_dict({**EXPERIMENT.to_dict(), "batching": False})
    return Sweep(experiment, space, experiences=1, seeds=[0, 1], trials=3, learner="naive")


def test_the_seeds_of_a_trial_side_by_side_make_the_same_trials(sweep, tmp_path, cluster):
    pytest.importorskip("optuna")
    alone = run_sweep(sweep, tmp_path / "alone", accelerator="cpu")
    together = run_sweep(sweep, tmp_path / "together", accelerator="cpu", jobs=2, cluster=cluster)
    assert alone["trials"] == together["trials"]


def test_trials_side_by_side_are_the_same_after_a_crash(sweep, tmp_path, monkeypatch, cluster):
    pytest.importorskip("optuna")
    whole = run_sweep(sweep, tmp_path / "whole", accelerator="cpu", jobs=1)

    def crash(*_, **__):
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr("lit_meta.experiments.sweep.side_by_side", crash)
        with pytest.raises(InterruptedError):
            run_sweep(sweep, tmp_path / "crashed", accelerator="cpu", jobs=4)
    # The two trials that were running are made again, with the same values, and then the third.
    resumed = run_sweep(sweep, tmp_path / "crashed", accelerator="cpu", jobs=4, cluster=cluster, resume=True)
    assert [trial["values"] for trial in resumed["trials"]] == [trial["values"] for trial in whole["trials"]]


@pytest.mark.parametrize("jobs", (0, -1, True, 1.5))
def test_jobs_are_a_positive_number(jobs):
    with pytest.raises(ValueError, match="jobs must be"):
        check_jobs(jobs, None)


def test_the_command_refuses_no_jobs_and_leaves_nothing(tmp_path, capsys):
    assert main(["run", "mlp.ewc_split-digits", "--jobs", "0", "--run_dir", str(tmp_path / "run")]) == 1
    assert "jobs must be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


_READ: list[bytes] = []


def _reads_much() -> int:
    _READ.append(b"x" * 320_000_000)
    time.sleep(1.1)  # joblib looks at a worker's memory once a second.
    return os.getpid()


def test_a_worker_that_has_read_its_data_is_kept():
    assert len(set(side_by_side([_reads_much] * 6, jobs=2))) <= 2

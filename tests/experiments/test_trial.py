"""One batch of every learner is tried before anything is written."""

from __future__ import annotations

import random
import warnings
import weakref

import numpy as np
import pytest
import torch

from lit_meta.callbacks import ContinualEvaluation
from lit_meta.cli import main
from lit_meta.experiments import load_experiment, run
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.run import benchmarks_of, run_experiment
from lit_meta.experiments.trial import try_learners
from lit_meta.rules import RecursiveReadout


def described(**changes):
    return Experiment.from_dict(
        {
            "name": "tried",
            "scenario": {"name": "split-digits", "experiences": 5},
            "network": {"name": "mlp", "inputs": 64, "hidden": [8], "classes": 10, "output": "identity"},
            "rule": "ewc",
            "seeds": [0],
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    (
        ({"controls": {"wide": {"network": {"inputs": 63}}}}, "controls.wide: expected a batch"),
        ({"overrides": {"joint": {"network": {"classes": 9}}}}, "overrides.joint: "),
    ),
)
def test_a_learner_that_cannot_train_is_found_before_the_first_one_does(tmp_path, changes, said):
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    learned = []
    with pytest.raises(Exception, match=said):
        run_experiment(
            described(**changes), tmp_path / "run", accelerator="cpu", on_experience=lambda *_: learned.append(1)
        )
    assert learned == []
    assert not (tmp_path / "run").exists()
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


def test_labels_beyond_the_head_are_found_wherever_they_are_in_the_stream(tmp_path):
    scenario = {"name": "split-digits", "experiences": 10, "class_order": list(range(10))}
    experiment = described(
        scenario=scenario, rule=None, network={"name": "mlp", "inputs": 64, "hidden": [8], "classes": 9}
    )
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        run_experiment(experiment, tmp_path / "run", learners=["naive"], accelerator="cpu")
    assert not (tmp_path / "run").exists()


def test_callbacks_that_do_not_fit_the_stream_are_found_too(tmp_path):
    experiment = described(rule={"name": "xdg", "gated": 0.5})
    folders = []

    def callbacks(learner, folder, benchmark):
        folders.append(folder)
        return [ContinualEvaluation(benchmark.test_stream, every_n_steps=1, folder=folder)] if learner == "rule" else []

    with pytest.raises(ValueError, match="rule: ContinualEvaluation cannot provide the task"):
        try_learners(experiment, benchmarks_of(experiment), ["rule"], accelerator="cpu", callbacks=callbacks)
    assert not folders[0].exists()


def test_results_are_those_of_a_run_without_the_trial(tmp_path, monkeypatch):
    experiment = described(rule={"name": "mesu"})
    tried = run_experiment(experiment, tmp_path / "a", learners=["rule"], accelerator="cpu")
    monkeypatch.setattr("lit_meta.experiments.run.try_learners", lambda *_, **__: None)
    untried = run_experiment(experiment, tmp_path / "b", learners=["rule"], accelerator="cpu")
    assert tried["rule"]["accuracy_matrix"] == untried["rule"]["accuracy_matrix"]
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/rule.safetensors").read_bytes() == (tmp_path / "b/rule.safetensors").read_bytes()


def test_a_finished_learner_is_not_tried_again(tmp_path, monkeypatch):
    experiment = described()
    run_experiment(experiment, tmp_path / "run", learners=["naive"], accelerator="cpu")
    tried = []
    monkeypatch.setattr("lit_meta.experiments.run.try_learners", lambda e, b, learners, **_: tried.extend(learners))
    run_experiment(experiment, tmp_path / "run", learners=["naive", "joint"], accelerator="cpu", resume=True)
    assert tried == ["joint"]


def test_the_command_says_it_in_a_line(tmp_path, capsys):
    options = ["--controls", "{wide: {network: {inputs: 63}}}", "--run_dir", str(tmp_path / "run")]
    assert main(["run", "mlp.ewc_split-digits", *options]) == 1
    assert capsys.readouterr().err.strip().startswith("lit-meta: controls.wide: expected a batch")
    assert not (tmp_path / "run").exists()


def test_nothing_of_a_trial_stays_in_memory(monkeypatch):
    built = []
    build = run.build_module

    def build_module(*arguments):
        module = build(*arguments)
        built.append(weakref.ref(module))
        return module

    monkeypatch.setattr(run, "build_module", build_module)
    experiment = described()
    try_learners(experiment, benchmarks_of(experiment), ["rule"], accelerator="cpu")
    assert len(built) == 1
    assert built[0]() is None


@pytest.mark.parametrize(("widest", "solved"), ((4096, True), (100, False)))
def test_a_trial_of_a_readout_warns_of_nothing_and_solves_no_wide_head(widest, solved, monkeypatch):
    """Its few samples are fewer than those of the critical period, and the advice to take more would be wrong."""
    solutions: list[int] = []
    solve = RecursiveReadout.solve

    def counted(self, moments, counts):
        solutions.append(len(counts))
        return solve(self, moments, counts)

    monkeypatch.setattr(RecursiveReadout, "solve", counted)
    monkeypatch.setattr("lit_meta.experiments.trial._WIDEST_SOLVED", widest)
    experiment = load_experiment("patch-net.recursive-readout_split-digits")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*below the head changed.*")
        try_learners(experiment, benchmarks_of(experiment), ["rule"], accelerator="cpu")
    assert bool(solutions) is solved

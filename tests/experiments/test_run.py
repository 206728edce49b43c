"""Experiments: controls beside the rule, what differs for each learner, and the test by batching."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lit_meta.evaluation.accuracy import accuracy_by_batching
from lit_meta.experiments.run import Experiment, load_experiment, run_experiment
from lit_meta.experiments.run_folder import write_config
from lit_meta.utils.locks import owned_folder

CONFIG = """
name: small
scenario: {name: split-digits, experiences: 2}
network: {name: mlp, inputs: 64, hidden: [20], classes: 10, gate: batch, gate_margin: 0.3}
rule: {name: naca, reduction: sum}
loss: summed_mse
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01}}
batch_size: 64
protocol: paper
seeds: [0]
batching: true
overrides:
  naive: {network: {gate: none, gate_margin: null}}
controls:
  plasticity-off: {rule: {name: naca, strength: 0.0}}
  plain: {rule: []}
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return load_experiment(str(path))


def test_each_learner_is_the_experiment_with_its_differences(experiment):
    assert experiment.learners == ("rule", "naive", "joint", "plasticity-off", "plain")
    assert experiment.for_learner("rule").network == experiment.network
    naive = experiment.for_learner("naive")
    assert naive.network == {**experiment.network, "gate": "none", "gate_margin": None}
    assert naive.rule is None
    assert experiment.for_learner("plasticity-off").rule == {"name": "naca", "strength": 0.0}
    assert not experiment.for_learner("plain").rule
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    with pytest.raises(ValueError, match="a learner must be one of"):
        experiment.for_learner("nobody")


def test_an_override_of_a_mapping_changes_its_keys_and_one_with_a_name_replaces_it():
    network = {
        "name": "mine",
        "inner": {"name": "a", "width": 3},
        "plain": {"x": 1, "deep": {"y": 2, "z": 3}},
        "size": 4,
    }
    changed = {"inner": {"name": "b"}, "plain": {"deep": {"y": 5}}, "size": {"x": 1}}
    values = {
        "name": "small",
        "scenario": "split-digits",
        "network": network,
        "controls": {"other": {"network": changed}},
    }
    experiment = Experiment.from_dict(values)
    assert experiment.for_learner("other").network == {
        "name": "mine",
        "inner": {"name": "b"},
        "plain": {"x": 1, "deep": {"y": 5, "z": 3}},
        "size": {"x": 1},
    }
    assert experiment.network == network


@pytest.mark.parametrize("name", ("rule", "with space", "a/b"))
def test_a_control_needs_a_name_of_its_own(experiment, name):
    values = experiment.to_dict()
    with pytest.raises(ValueError, match="a control has a name"):
        Experiment.from_dict({**values, "controls": {name: {}}})


def test_controls_run_on_the_same_stream_and_a_resumed_run_reports_the_same(experiment, tmp_path):
    chosen = ("rule", "plasticity-off")
    first = run_experiment(experiment, tmp_path / "run", learners=chosen, accelerator="cpu")
    assert set(first["rule"]["accuracy_by_batching"]) == {
        "one experience a batch",
        "shuffled",
        "one sample a batch",
    }
    assert first["rule"]["cost"]["state_bytes"] == first["plasticity-off"]["cost"]["state_bytes"] == 20 * 20 * 4
    again = run_experiment(experiment, tmp_path / "run", learners=chosen, accelerator="cpu", resume=True)
    for learner in chosen:
        assert json.dumps(again[learner]) == json.dumps(first[learner])


@pytest.mark.parametrize("chosen", ("highest", "medium"))
def test_products_have_the_precision_of_the_experiment_and_then_the_former_one(experiment, tmp_path, chosen):
    experiment = replace(experiment, matmul_precision=chosen)
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.append(torch.get_float32_matmul_precision())

    def stop(*_: object) -> None:
        raise InterruptedError

    torch.set_float32_matmul_precision("high")
    try:
        learners = {"learners": ("rule", "joint"), "accelerator": "cpu"}
        report = run_experiment(experiment, tmp_path / "run", on_experience=look, **learners)
        assert seen == 3 * [chosen]  # Two experiences, and the joint one.
        assert report["matmul_precision"] == chosen
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(InterruptedError):
            run_experiment(experiment, tmp_path / "stopped", on_experience=stop, **learners)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_unknown_precision_is_refused(experiment):
    with pytest.raises(ValueError, match="matmul_precision must be one of"):
        replace(experiment, matmul_precision="low")


def test_a_run_from_before_an_argument_existed_goes_on_with_its_default(experiment, tmp_path):
    write_config(experiment, tmp_path, resume=False)
    path = tmp_path / "config.yaml"
    values = yaml.safe_load(path.read_text())
    del values["matmul_precision"]
    path.write_text(yaml.safe_dump(values))
    write_config(experiment, tmp_path, resume=True)
    assert yaml.safe_load(path.read_text())["matmul_precision"] == "highest"
    begun = tmp_path / "rule" / "seed-0" / "metrics.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    with pytest.raises(
        ValueError, match="of another experiment: its learner 'rule' has begun with another matmul_precision"
    ):
        write_config(replace(experiment, matmul_precision="medium"), tmp_path, resume=True)


def test_what_has_not_begun_may_be_corrected_and_what_has_may_not(experiment, tmp_path):
    learners = ("plain", "naive")
    first = run_experiment(experiment, tmp_path / "run", learners=("plain",), accelerator="cpu")
    values = experiment.to_dict()
    values["controls"]["plasticity-off"]["rule"]["strength"] = 0.5
    values["overrides"]["naive"]["max_epochs"] = 2
    values["controls"]["new"] = {"max_epochs": 3}
    corrected = Experiment.from_dict(values)
    report = run_experiment(corrected, tmp_path / "run", learners=learners, accelerator="cpu", resume=True)
    assert report["plain"]["accuracy_matrix"] == first["plain"]["accuracy_matrix"]
    assert load_experiment(str(tmp_path / "run" / "config.yaml")) == corrected
    for part in ({"controls": {**values["controls"], "plain": {"rule": [], "max_epochs": 2}}}, {"seeds": [1]}):
        with pytest.raises(ValueError, match=r"learner .(plain|naive). has begun with another (max_epochs|seeds)"):
            run_experiment(Experiment.from_dict({**values, **part}), tmp_path / "run", accelerator="cpu", resume=True)
    del values["controls"]["plain"]
    with pytest.raises(ValueError, match="learner 'plain' has begun"):
        run_experiment(Experiment.from_dict(values), tmp_path / "run", accelerator="cpu", resume=True)


def test_batching_finds_a_network_that_looks_at_its_neighbours():
    class Neighbours(nn.Module):
        """Predicts the most frequent class of its batch."""

        def forward(self, x):
            return x.mean(0, keepdim=True).expand_as(x)

    y = torch.arange(4).repeat_interleave(50)
    x = torch.eye(4)[y]
    experiences = [(x[y == c], y[y == c]) for c in range(4)]
    # Every second sample looks like the next class: alone, it is taken for that.
    for samples, _ in experiences:
        samples[::2] = samples[::2].roll(1, dims=1) * 0.9
    found = accuracy_by_batching(Neighbours(), experiences, batch_size=50)
    assert found["one experience a batch"] == 1.0
    assert found["shuffled"] < 0.5
    assert found["one sample a batch"] == pytest.approx(0.5)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_starting_afresh_takes_a_word_and_removes_the_run_alone(experiment, tmp_path):
    run_dir, options = tmp_path / "run", {"learners": ["rule"], "accelerator": "cpu"}
    run_experiment(experiment, run_dir, **options)
    (run_dir / "notes.txt").write_text("mine")
    before = contents(run_dir)
    other = replace(experiment, batch_size=32, overrides={}, controls={})
    for wrong, error, message in (
        ({}, FileExistsError, "start afresh with --overwrite"),
        ({"resume": True}, ValueError, "batch_size"),
        ({"resume": True, "overwrite": True}, ValueError, "give one of them"),
    ):
        with pytest.raises(error, match=message):
            run_experiment(other, run_dir, **options, **wrong)
    bad = replace(other, network={"name": "mlp", "inputs": 63, "hidden": [4], "classes": 10})
    with pytest.raises(ValueError, match="samples of 63 values"):  # Refused: what is there stays.
        run_experiment(bad, run_dir, **options, overwrite=True)
    assert contents(run_dir) == before
    afresh = run_experiment(other, run_dir, **options, overwrite=True)
    expected = run_experiment(other, tmp_path / "new", **options)
    assert afresh["rule"]["accuracy_matrix"] == expected["rule"]["accuracy_matrix"]
    assert (run_dir / "notes.txt").read_text() == "mine"
    assert {*contents(run_dir)} - {*contents(tmp_path / "new")} == {Path("notes.txt")}
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["batch_size"] == 32


@pytest.mark.parametrize("options", ({}, {"overwrite": True}, {"jobs": 2}))
def test_one_process_owns_the_folder_of_a_run(experiment, tmp_path, options):
    with owned_folder(tmp_path / "run"):
        with pytest.raises(RuntimeError, match="in use by this process already"):
            run_experiment(experiment, tmp_path / "run", learners=["naive"], accelerator="cpu", **options)
        assert set(contents(tmp_path / "run")) == {Path(".lock")}


def test_the_folder_of_a_run_is_owned_while_it_lasts(experiment, tmp_path):
    owners = []

    def on_experience(*others):
        owners.append((tmp_path / "run" / ".lock").read_text())

    run_experiment(experiment, tmp_path / "run", learners=["naive"], accelerator="cpu", on_experience=on_experience)
    assert [json.loads(owner)["pid"] for owner in owners] == [os.getpid()] * 2
    assert not (tmp_path / "run" / ".lock").exists()

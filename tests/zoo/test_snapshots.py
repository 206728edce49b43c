"""Networks as they were after each experience."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from lit_meta import scenario, zoo
from lit_meta.evaluation.accuracy import evaluate
from lit_meta.experiments import units
from lit_meta.experiments.config import Experiment
from lit_meta.zoo.schema import digest_of

EXPERIMENT = {
    "name": "mlp.ewc_split-digits-short",
    "scenario": {"name": "split-digits", "experiences": 5},
    "network": {"name": "mlp", "inputs": 64, "hidden": [30], "classes": 10, "activation": "relu", "output": "identity"},
    "rule": {"name": "ewc", "strength": 10.0},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "max_epochs": 2,
    "batch_size": 32,
    "seeds": [0],
}


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    place = tmp_path_factory.mktemp("snapshots")
    return zoo.remake(Experiment.from_dict(EXPERIMENT), place / "run", zoo=place / "zoo")


def test_every_row_of_the_accuracy_matrix_is_measured_again_without_training(entry):
    card = zoo.card(entry)
    stream = scenario("split-digits", experiences=5, seed=0)
    for number, row in enumerate(card["accuracy_matrix"], 1):
        assert evaluate(zoo.load(entry, after=number), stream).tolist() == pytest.approx(row, abs=1e-6)
    assert card["format"] == 3
    assert zoo.verify(entry) == []


def test_the_last_snapshot_is_the_network_itself(entry):
    final, last = zoo.load(entry).state_dict(), zoo.load(entry, after=5).state_dict()
    assert all(torch.equal(final[key], last[key]) for key in final)


@pytest.mark.parametrize("after", (0, 6, -1, True, 1.0))
def test_there_is_no_other_experience(entry, after):
    with pytest.raises(ValueError, match="from 1 to 5"):
        zoo.load(entry, after=after)


def test_a_run_stops_keeping_networks_at_a_bound_and_its_entry_has_none(tmp_path, monkeypatch):
    size = 4 * (64 * 30 + 30 * 10)
    monkeypatch.setattr(units, "_SNAPSHOTS_IN_ALL", 3 * size)
    made = zoo.remake(Experiment.from_dict(EXPERIMENT), tmp_path / "run", zoo=tmp_path / "zoo")
    assert len(list((tmp_path / "run").rglob("snapshots/*.safetensors"))) == 3
    assert "snapshots.safetensors" not in zoo.card(made)["sha256"]


def test_the_memory_is_that_of_the_end(entry):
    with pytest.raises(ValueError, match="without its rule"):
        zoo.load(entry, with_rule=True, after=2)


def test_an_entry_without_snapshots_says_so():
    with pytest.raises(ValueError, match="has no snapshots"):
        zoo.load("mlp.naca_split-digits-standard", after=2)


def test_a_file_of_snapshots_that_the_card_does_not_list_is_refused(entry, tmp_path):
    shutil.copytree(entry, tmp_path / "entry")
    card = json.loads((tmp_path / "entry" / "config.json").read_text())
    del card["sha256"]["snapshots.safetensors"]
    card["sha256"]["config.json"] = digest_of(card)
    (tmp_path / "entry" / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is not on the card"):
        zoo.load(tmp_path / "entry")


def test_snapshots_of_another_network_are_refused(entry, tmp_path):
    from safetensors.torch import load_file, save_file

    from lit_meta.utils.io import sha256

    shutil.copytree(entry, tmp_path / "entry")
    file = tmp_path / "entry" / "snapshots.safetensors"
    tensors = load_file(file)
    card = json.loads((tmp_path / "entry" / "config.json").read_text())
    for changed in (
        {**tensors, "1/other": torch.ones(2)},
        {k: t for k, t in tensors.items() if k != "2/layers.0.weight"},
    ):
        save_file(changed, file)
        card["sha256"]["snapshots.safetensors"] = sha256(file)
        card["sha256"]["config.json"] = digest_of(card)
        (tmp_path / "entry" / "config.json").write_text(json.dumps(card))
        with pytest.raises(ValueError, match=r"no tensor of the network|not the same tensors"):
            zoo.load(tmp_path / "entry", after=1)

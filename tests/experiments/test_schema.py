"""The JSON Schema that editors check configs with."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from lit_meta.cli import main
from lit_meta.experiments.loading import read_config
from lit_meta.experiments.schema import experiment_schema, sweep_schema
from lit_meta.utils.paths import configs_folder


@pytest.fixture(scope="module")
def experiment():
    return jsonschema.Draft202012Validator(experiment_schema())


@pytest.fixture(scope="module")
def sweep():
    return jsonschema.Draft202012Validator(sweep_schema())


@pytest.mark.parametrize("kind", ("experiment", "sweep"))
def test_schemas_are_schemas_and_every_config_fits(kind, experiment, sweep):
    validator = {"experiment": experiment, "sweep": sweep}[kind]
    validator.check_schema(validator.schema)
    files = sorted((configs_folder() / kind).glob("*.yaml"))
    assert files
    for file in files:
        assert [error.message for error in validator.iter_errors(read_config(file))] == [], file


BASE = {
    "name": "small",
    "scenario": "split-digits",
    "network": {"name": "mlp", "inputs": 64, "hidden": [12], "classes": 10},
    "rule": "ewc",
}


@pytest.mark.parametrize(
    "change",
    (
        {"rule": {"name": "ewc", "strength": 5}},
        {"rule": {"class_path": "my_package.MyRule", "init_args": {"anything": 1}}},
        {"rule": ["si", {"name": "xdg", "gated": 0.8}]},
        {"rule": None},
        {"optimizer": {"name": "adam", "lr": 0.1, "betas": [0.9, 0.99]}},
        {"scenario": {"name": "permuted", "source": "digits", "experiences": 3}},
        {"overrides": {"joint": {"network": {"bias": True}}}},
        {"network": {**BASE["network"], "gate": {"name": "sample", "margin": 0.1}}},
        {"network": {**BASE["network"], "name": "lif-mlp", "neuron": {"steps": 5}, "encoding": "analog", "decay": 0.5}},
        {"overrides": {"joint": {"network": {"neuron": {"steps": 5}}}}},
    ),
)
def test_all_forms_of_specs_fit(change, experiment):
    assert experiment.is_valid({**BASE, **change})


@pytest.mark.parametrize(
    "change",
    (
        {"max_epoch": 2},
        {"rule": "ecw"},
        {"rule": {"name": "ewc", "strenght": 5}},
        {"rule": {"name": "ewc", "strength": "much"}},
        {"rule": {"class_path": "torch.optim.SGD", "lr": 5}},
        {"network": {"name": "mlp", "hidden": [12], "classes": 10}},
        {"network": {**BASE["network"], "bias": "no"}},
        {"network": {**BASE["network"], "gate": "smaple"}},
        {"network": {**BASE["network"], "gate": {"name": "smaple"}}},
        {"network": {**BASE["network"], "gate": {"name": "sample", "gate_margin": 0.1}}},
        {"network": {**BASE["network"], "name": "lif-mlp", "neuron": {"stesp": 5}}},
        {"network": {**BASE["network"], "name": "lif-mlp", "neuron": {"steps": "five"}}},
        {"network": {**BASE["network"], "name": "lif-mlp", "stesp": 5}},
        {"scenario": "split-digts"},
        {"loss": "msee"},
        {"seeds": []},
        {"seeds": [0, 0]},
        {"protocol": "leaky"},
        {"overrides": {"joint": {"max_epoch": 2}}},
        {"overrides": {"joint": {"network": {"hiden": [1]}}}},
        {"overrides": {"jiont": {"max_epochs": 2}}},
        {"controls": {"naive": {"max_epochs": 2}}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.1}},
    ),
)
def test_a_typo_is_flagged(change, experiment):
    assert not experiment.is_valid({**BASE, **change})


def test_a_typo_in_a_sweep_is_flagged(sweep):
    good = {"experiment": "mlp.ewc_split-digits", "experiences": 2, "space": {"rule.strength": {"low": 1, "high": 2}}}
    assert sweep.is_valid(good)
    for path, value in (
        (("space", "rul.strength"), {"low": 1, "high": 2}),
        (("space", "rule.strength"), {"lo": 1}),
        (("trial",), 3),
    ):
        wrong = copy.deepcopy(good)
        place = wrong
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not sweep.is_valid(wrong), path


@pytest.mark.parametrize("kind", ("experiment", "sweep"))
def test_the_command_prints_the_schema(kind, capsys):
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == f"lit_meta {kind}"

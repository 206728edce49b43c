"""LightningCLI with the callback and the wrapper in its YAML file, rules given in each form of a spec."""

from __future__ import annotations

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

import lit_meta
from lit_meta.rules import EWC, SI

DATA = {"class_path": "tests.integrations.cli_parts.Data"}
QUIET = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
STRENGTH_5 = (
    {"class_path": "lit_meta.EWC", "init_args": {"strength": 5}},
    {"class_path": "lit_meta.rules.ewc.EWC", "init_args": {"strength": 5}},
    {"name": "ewc", "strength": 5},
    [{"name": "ewc", "strength": 5}],
    [{"class_path": "lit_meta.EWC", "init_args": {"strength": 5}}],
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # LightningCLI calls what newer releases of jsonargparse have deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


def fitted(content: dict, tmp_path, *arguments: str) -> LightningCLI:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 0, "data": DATA, **content}))
    return LightningCLI(
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        args=["fit", "--config", str(path), *arguments],
    )


def by_callback(rule: object) -> dict:
    callback = {"class_path": "lit_meta.Metaplasticity", "init_args": {"rule": rule}}
    return {
        "model": {"class_path": "tests.integrations.cli_parts.Module"},
        "trainer": {**QUIET, "callbacks": [callback]},
    }


def by_wrapper(rule: object) -> dict:
    network = {"name": "mlp", "inputs": 4, "hidden": [3], "classes": 2, "output": "identity", "seed": 1}
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    model = {"network": network, "rule": rule, "optimizer": optimizer}
    return {"model": {"class_path": "lit_meta.MetaplasticModule", "init_args": model}, "trainer": QUIET}


def callback_of(cli: LightningCLI) -> lit_meta.Metaplasticity:
    (callback,) = (c for c in cli.trainer.callbacks if isinstance(c, lit_meta.Metaplasticity))
    return callback


@pytest.mark.parametrize("rule", STRENGTH_5, ids=str)
@pytest.mark.parametrize("host", (by_callback, by_wrapper))
def test_a_rule_in_yaml_learns(host, rule, tmp_path):
    cli = fitted(host(rule), tmp_path)
    (learned,) = callback_of(cli).rules
    assert type(learned) is EWC
    assert learned.strength == 5
    # It has consolidated on the experience that the fit was.
    assert any(bool(values.any()) for values in learned.state["importance"].values())


@pytest.mark.parametrize("host", (by_callback, by_wrapper))
def test_a_name_is_a_rule_with_its_defaults_and_several_are_several(host, tmp_path):
    assert callback_of(fitted(host("ewc"), tmp_path)).rules[0].strength == EWC().strength
    both = callback_of(fitted(host(["si", {"name": "ewc", "strength": 2}]), tmp_path)).rules
    assert [type(rule) for rule in both] == [SI, EWC]


def test_the_wrapper_of_a_file_is_the_wrapper_of_a_call(tmp_path):
    from lit_meta.networks import build_network
    from tests.integrations.cli_parts import Data
    from tests.rules.drivers import trainer

    cli = fitted(by_wrapper({"name": "ewc", "strength": 5}), tmp_path)
    torch.manual_seed(3)
    network = build_network("mlp", inputs=4, hidden=[3], classes=2, output="identity", seed=1)
    module = lit_meta.MetaplasticModule(
        network, rule=EWC(strength=5), optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    )
    trainer(max_epochs=1).fit(module, Data())
    for name, parameter in module.network.named_parameters():
        assert torch.equal(parameter, cli.model.network.get_parameter(name)), name


def test_networks_may_be_class_paths_and_options_override_the_file(tmp_path):
    content = by_wrapper({"class_path": "lit_meta.EWC", "init_args": {"strength": 5}})
    content["model"]["init_args"]["network"] = {
        "class_path": "torch.nn.Linear",
        "init_args": {"in_features": 4, "out_features": 2},
    }
    cli = fitted(content, tmp_path, "--model.init_args.rule.init_args.strength", "7")
    assert isinstance(cli.model.network, torch.nn.Linear)
    assert callback_of(cli).rules[0].strength == 7


@pytest.mark.parametrize("rule", ("ecw", {"name": "ewc", "strenght": 5}))
@pytest.mark.parametrize("host", (by_callback, by_wrapper))
def test_a_typo_is_refused_with_the_nearest(host, rule, tmp_path, capsys):
    with pytest.raises((KeyError, TypeError, ValueError, SystemExit)) as refused:
        fitted(host(rule), tmp_path)
    assert "did you mean" in str(refused.value) + capsys.readouterr().err


def test_hosts_take_specs_in_python_too():
    from lit_meta.integrations.avalanche import MetaplasticityPlugin

    assert lit_meta.Metaplasticity({"name": "ewc", "strength": 2}).rules[0].strength == 2
    assert [type(rule) for rule in MetaplasticityPlugin(["si", EWC()]).rules] == [SI, EWC]
    module = lit_meta.MetaplasticModule({"name": "mlp", "inputs": 4, "hidden": [], "classes": 2}, rule="ewc")
    assert module.plasticity is not None
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    assert lit_meta.FabricSession(fabric, module.network, ["si", EWC()]).rules[0].strength == SI().strength
    with pytest.raises(TypeError, match="a rule is an instance of"):
        lit_meta.Metaplasticity(3)
    with pytest.raises(TypeError, match="build_rule"):
        lit_meta.Session(module.network, "ewc")

"""The search sees validation data of the first experiences and nothing else, and goes on where it stopped."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_meta.cli import main
from lit_meta.core.errors import DivergedError
from lit_meta.data import experience_tensors, scenario
from lit_meta.experiments.run import Experiment, load_experiment, run_seed
from lit_meta.experiments.sweep import run_sweep, validation_benchmark
from lit_meta.experiments.sweep_config import Dimension, Sweep, load_sweep
from lit_meta.streams.fit import fit_stream

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install optuna")

EXPERIMENT = Experiment(
    name="ewc-digits",
    scenario={"name": "split-digits", "experiences": 5},
    network={"name": "mlp", "inputs": 64, "hidden": [8], "classes": 10, "activation": "relu", "output": "identity"},
    rule={"name": "ewc", "strength": 1.0},
    batch_size=64,
    seeds=[0],
)
SPACE = {
    "rule.strength": Dimension(1.0, 1000.0, log=True),
    "optimizer.init_args.lr": Dimension(0.001, 0.5, log=True),
    "batch_size": Dimension(choices=(32, 64)),
    "max_epochs": Dimension(1, 2),
}


def make(**changes: Any) -> Sweep:
    return replace(Sweep(EXPERIMENT, SPACE, experiences=2, seeds=[0], trials=4), **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_sweep(make(), folder, accelerator="cpu")


def test_the_best_is_the_best_and_a_run_gives_its_number_again(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = whole
    assert len(facts["trials"]) == 4
    assert len({str(one["values"]) for one in facts["trials"]}) == 4
    assert facts["best"]["accuracy"] == max(one["accuracy"] for one in facts["trials"])
    for one in facts["trials"]:
        values = one["values"]
        assert 1 <= values["rule.strength"] <= 1000
        assert values["batch_size"] in (32, 64)
        assert values["max_epochs"] in (1, 2)
    assert json.loads((folder / "trials.json").read_text())["trials"] == facts["trials"]

    best = load_experiment(facts["config"])
    values = facts["best"]["values"]
    assert best.rule == {"name": "ewc", "strength": values["rule.strength"]}
    assert best.optimizer["init_args"]["lr"] == values["optimizer.init_args.lr"]
    assert (best.batch_size, best.max_epochs) == (values["batch_size"], values["max_epochs"])
    assert "no test data was seen" in best.note
    # The number again, from the parts: the experiment of best.yaml on what was held out of the first two experiences.
    benchmark = validation_benchmark(best, seed=0, experiences=2, validation=0.2)
    from lit_meta.experiments.run import build_module

    result = fit_stream(
        build_module(best, 0), benchmark, max_epochs=best.max_epochs, batch_size=best.batch_size, accelerator="cpu"
    )
    assert result.average_accuracy == facts["best"]["accuracy"]


def test_trials_compute_in_the_precision_of_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(*arguments: Any, **named: Any) -> Any:
        seen.append(torch.get_float32_matmul_precision())
        return fit_stream(*arguments, **named)

    monkeypatch.setattr("lit_meta.experiments.sweep.fit_stream", look)
    run_sweep(make(experiment=replace(EXPERIMENT, matmul_precision="medium"), trials=1), tmp_path, accelerator="cpu")
    assert seen == ["medium"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_validation_data_is_training_data_that_is_not_trained_on() -> None:
    benchmark = validation_benchmark(EXPERIMENT, seed=3, experiences=2, validation=0.25)
    original = scenario("split-digits", experiences=5, seed=3)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == 2
    for held, kept, before in zip(benchmark.test_stream, benchmark.train_stream, original.train_stream, strict=False):
        parts = [{tuple(x.flatten().tolist()) for x in experience_tensors(e)[0]} for e in (held, kept, before)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == parts[2]
    with pytest.raises(ValueError, match="asks for the first 9 experiences"):
        validation_benchmark(EXPERIMENT, seed=0, experiences=9, validation=0.2)


def test_poisoned_test_data_changes_nothing(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = importlib.import_module("lit_meta.data._building")
    load = module.load_source

    def poisoned(name: str, root: Any = None) -> Any:
        source = load(name, root)
        return replace(source, test_x=torch.full_like(source.test_x, float("nan")), test_y=source.test_y.flip(0))

    monkeypatch.setattr(module, "load_source", poisoned)
    facts = run_sweep(make(), tmp_path, accelerator="cpu")
    assert facts["trials"] == whole[1]["trials"]
    assert Path(facts["config"]).read_text() == Path(whole[1]["config"]).read_text()
    # The poison is there: whoever reads the test stream finds it.
    with pytest.raises(ValueError, match="not finite"):
        run_seed(EXPERIMENT, "rule", 0, accelerator="cpu")


def test_a_sweep_that_was_stopped_goes_on_to_the_same_trials(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def stop(number: int, accuracy: float) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(make(), tmp_path, accelerator="cpu", on_trial=stop)
    # As a crash within a trial leaves it: asked for, never told.
    study = optuna.load_study(study_name="ewc-digits", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.ask()
    with pytest.raises(FileExistsError, match="continue it with --resume"):
        run_sweep(make(), tmp_path, accelerator="cpu")
    with pytest.raises(ValueError, match="of another sweep"):
        run_sweep(make(validation=0.3), tmp_path, accelerator="cpu", resume=True)
    facts = run_sweep(make(), tmp_path, accelerator="cpu", resume=True)
    assert facts["trials"] == whole[1]["trials"]
    more = run_sweep(make(trials=5), tmp_path, accelerator="cpu", resume=True)
    assert more["trials"][:4] == facts["trials"]
    assert len(more["trials"]) == 5


def test_a_setting_that_diverges_counts_as_nothing_and_ends_nothing(tmp_path: Path) -> None:
    space = {"optimizer.init_args.lr": Dimension(choices=(1e30, 0.1))}
    facts = run_sweep(make(space=space, trials=6), tmp_path, accelerator="cpu")
    by_rate = {one["values"]["optimizer.init_args.lr"]: one["accuracy"] for one in facts["trials"]}
    assert by_rate[1e30] == 0.0
    assert facts["best"]["values"]["optimizer.init_args.lr"] == 0.1


@pytest.mark.parametrize("error", (DivergedError("no longer finite"), ValueError("something else has diverged")))
def test_only_divergence_counts_as_nothing(error, monkeypatch, tmp_path: Path) -> None:
    def fit(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("lit_meta.experiments.sweep.fit_stream", fit)
    if isinstance(error, DivergedError):
        assert [one["accuracy"] for one in run_sweep(make(trials=1), tmp_path, accelerator="cpu")["trials"]] == [0.0]
    else:
        with pytest.raises(ValueError, match="something else"):
            run_sweep(make(trials=1), tmp_path, accelerator="cpu")


def test_the_values_go_where_the_learner_reads_them() -> None:
    values = {"optimizer.init_args.lr": 0.5}
    space = {"optimizer.init_args.lr": Dimension(0.1, 1.0)}
    rule = make(space=space).with_values(values)
    assert rule.optimizer["init_args"]["lr"] == 0.5
    naive = make(space=space, learner="naive").with_values(values)
    assert naive.optimizer["init_args"]["lr"] == 0.1
    assert naive.for_learner("naive").optimizer["init_args"]["lr"] == 0.5
    hidden = Experiment.from_dict({**EXPERIMENT.to_dict(), "overrides": {"rule": {"optimizer": EXPERIMENT.optimizer}}})
    assert (
        make(experiment=hidden, space=space).with_values(values).for_learner("rule").optimizer["init_args"]["lr"] == 0.5
    )
    assert EXPERIMENT.optimizer["init_args"]["lr"] == 0.1, "the experiment itself is left alone"
    several = Experiment.from_dict({**EXPERIMENT.to_dict(), "rule": [{"name": "si"}, {"name": "ewc"}]})
    listed = make(experiment=several, space={"rule.1.strength": Dimension(1.0, 2.0)}).with_values(
        {"rule.1.strength": 2.0}
    )
    assert listed.rule == [{"name": "si"}, {"name": "ewc", "strength": 2.0}]


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"space": {"rule.strenght": Dimension(1.0, 2.0)}}, "does not fit the experiment"),
        ({"space": {"seeds": Dimension(choices=([0],))}}, "first part of 'seeds' must be one of"),
        ({"space": {"optimizer.arguments.lr": Dimension(1.0, 2.0)}}, "leads nowhere"),
        ({"space": {"batch_size.x": Dimension(1.0, 2.0)}}, "leads nowhere"),
        ({"space": {}}, "space is empty"),
        ({"experiences": 0}, "experiences must be a whole number"),
        ({"validation": 0.0}, "above 0 and below 1"),
        ({"learner": "joint"}, "learner must be one of 'rule', 'naive'"),
        ({"seeds": [1, 1]}, "different integers"),
    ),
)
def test_sweeps_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    (
        ([1, 2], "must be {low"),
        ({"low": 1}, "needs a number as high"),
        ({"low": "a", "high": 2}, "needs a number as low"),
        ({"low": 2, "high": 1}, "low below high"),
        ({"low": 0, "high": 1, "log": True}, "above 0 where log"),
        ({"choices": []}, "must be {low"),
        ({"choices": [1], "log": True}, "must be {low"),
    ),
)
def test_dimensions_that_make_no_sense(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dimension.read("lr", values)


def test_a_number_without_a_point_is_still_a_number() -> None:
    assert Dimension.read("lr", yaml.safe_load("{low: 1e-4, high: 1e-1, log: true}")) == Dimension(1e-4, 0.1, True)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT.to_dict()))
    config = tmp_path / "sweep.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "experiment": "experiment.yaml",
                "experiences": 2,
                "seeds": [0],
                "trials": 9,
                "space": {"rule.strength": {"low": 1, "high": 9}},
            }
        )
    )
    command = ["sweep", str(config), "--run_dir", str(tmp_path / "run"), "--trials", "2"]
    assert main([*command, "--json", str(tmp_path / "facts.json")]) == 0
    assert "the best of 2 settings" in capsys.readouterr().out
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert load_experiment(facts["config"]).name == "ewc-digits"
    assert main(command) == 1
    assert "continue it with --resume" in " ".join(capsys.readouterr().err.split())
    config.write_text("colour: red")
    assert main(["sweep", str(config)]) == 1
    assert "a sweep has no key 'colour'" in " ".join(capsys.readouterr().err.split())

    importing = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["sweep", "mlp.ewc_split-digits", "--run_dir", str(tmp_path / "other")]) == 1
    assert "pip install 'lit-meta[tune]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()


def test_every_sweep_in_the_configs_can_be_read() -> None:
    assert load_sweep("mlp.ewc_split-digits").experiment.name == "mlp.ewc_split-digits"
    with pytest.raises(KeyError, match="unknown sweep"):
        load_sweep("ewc")

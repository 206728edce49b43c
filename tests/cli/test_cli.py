"""The commands, as a user types them: tables, JSON, exit statuses, one line for each error."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from lit_meta import zoo
from lit_meta.cli import main


@pytest.fixture
def small_config(tmp_path):
    """An experiment that takes a second."""
    content = {
        "name": "small",
        "scenario": {"name": "split-digits", "experiences": 2},
        "network": {"name": "mlp", "inputs": 64, "hidden": [12], "classes": 10, "output": "identity"},
        "rule": {"name": "ewc", "strength": 10.0},
        "seeds": [0, 1],
        "overrides": {
            "joint": {"max_epochs": 2, "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}}
        },
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_evaluate_writes_the_promised_keys(tmp_path, capsys):
    assert main(["evaluate", "mlp.naca_split-digits", "--json", str(tmp_path / "out.json")]) == 0
    facts = json.loads((tmp_path / "out.json").read_text())
    assert set(facts) == {
        *("name", "scenario", "protocol", "average_accuracy", "forgetting"),
        *("accuracy_matrix", "naive", "joint", "seconds"),
    }
    assert facts["protocol"] == "standard"
    assert len(facts["accuracy_matrix"]) == 10
    assert facts["average_accuracy"] == pytest.approx(sum(facts["accuracy_matrix"][-1]) / 10)
    assert 0 <= facts["naive"] < facts["joint"] <= 1
    assert f"{100 * facts['average_accuracy']:.1f}" in capsys.readouterr().out


def test_run_report_and_zoo_entry(small_config, tmp_path, capsys):
    run_dir = tmp_path / "run"
    out = tmp_path / "run.json"
    assert main(["run", str(small_config), "--run_dir", str(run_dir), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report == json.loads((run_dir / "metrics.json").read_text())
    assert len(report["rule"]["average_accuracy"]["values"]) == 2
    assert report["command"] == f"lit-meta run {small_config} --run_dir {run_dir}"
    assert (run_dir / "figures" / "accuracy_matrix.png").stat().st_size > 5000
    assert len((run_dir / "accuracy_matrix.csv").read_text().split()) == 2

    assert main(["run", str(small_config), "--run_dir", str(run_dir)]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main(["run", str(small_config), "--run_dir", str(run_dir), "--resume"]) == 0
    resumed = json.loads((run_dir / "metrics.json").read_text())
    assert resumed["rule"]["accuracy_matrix"] == report["rule"]["accuracy_matrix"]
    assert main(["run", str(small_config), "--run_dir", str(run_dir), "--resume", "--set", "max_epochs=2"]) == 1
    assert "of another experiment" in capsys.readouterr().err

    assert main(["zoo", "add", str(run_dir), "--zoo", str(tmp_path / "zoo")]) == 0
    card = json.loads((tmp_path / "zoo" / "small" / "config.json").read_text())
    assert card["results"]["seed_average_accuracy"] == report["rule"]["average_accuracy"]["values"][0]


def test_a_run_without_the_ledger_learns_the_same_and_counts_no_arithmetic(small_config, tmp_path):
    for folder, arguments in (("with", []), ("without", ["--without_ledger"])):
        chosen = ["--learners", "rule", "--set", "seeds=[0]", *arguments, "--json", str(tmp_path / f"{folder}.json")]
        assert main(["run", str(small_config), "--run_dir", str(tmp_path / folder), *chosen]) == 0
    counted, plain = (json.loads((tmp_path / f"{name}.json").read_text())["rule"] for name in ("with", "without"))
    assert counted["accuracy_matrix"] == plain["accuracy_matrix"]
    assert counted["cost"]["forward_macs"] > 0
    assert "forward_macs" not in plain["cost"]
    assert plain["cost"]["steps"] == counted["cost"]["steps"] > 0


def test_outside_a_terminal_every_experience_has_a_line(small_config, tmp_path, capsys):
    assert main(["run", str(small_config), "--run_dir", str(tmp_path / "run"), "--learners", "rule", "joint"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * 2 + 2  # Of two seeds, two experiences of the rule, and the joint bound.
    assert lines[0].startswith("[1/6, ")
    assert " left] small: rule, seed 0, experience 1: " in lines[0]
    matrix = json.loads((tmp_path / "run" / "rule" / "seed-0" / "metrics.json").read_text())["accuracy_matrix"]
    assert f"{100 * matrix[0][0]:.1f} % on what was learned" in lines[0]
    assert "took" in lines[-1]
    assert "all at once" in lines[-1]
    assert main(["run", str(small_config), "--run_dir", str(tmp_path / "run"), "--resume"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # What the first run has learned is not counted again.
    assert lines[0].startswith("[1/4, ")
    assert "small: naive, seed 0" in lines[0]


def test_a_run_builds_the_stream_of_a_seed_once(small_config, tmp_path, monkeypatch):
    from lit_meta.data import scenarios

    seeds = []
    build = scenarios.scenario_for_seed
    monkeypatch.setattr(scenarios, "scenario_for_seed", lambda spec, seed: seeds.append(seed) or build(spec, seed))
    arguments = ["run", str(small_config), "--run_dir", str(tmp_path / "run"), "--set", "batching=true"]
    assert main([*arguments, "--learners", "naive", "joint"]) == 0
    assert seeds == [0, 1]


def test_settings_can_be_changed_on_the_command_line(small_config, tmp_path):
    arguments = ["--learners", "naive", "--set", "seeds=[3]", "max_epochs=2"]
    assert main(["run", str(small_config), "--run_dir", str(tmp_path / "run"), *arguments]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["seeds"] == [3]
    assert config["max_epochs"] == 2


@pytest.mark.parametrize("command", (["zoo", "list"], ["zoo", "show", "mlp.ewc_split-digits"]))
def test_listings(command, tmp_path, capsys):
    assert main([*command, "--json", str(tmp_path / "facts.json")]) == 0
    assert json.loads((tmp_path / "facts.json").read_text())
    assert capsys.readouterr().out.strip()


def test_the_demo_does_the_main_job(tmp_path, capsys):
    assert main(["demo", "--run_dir", str(tmp_path / "demo")]) == 0
    shown = capsys.readouterr().out
    assert "joint bound" in " ".join(shown.split())
    facts = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert (
        facts["backbone"]["recursive readout"]["average_accuracy"]
        > 0.8
        > facts["backbone"]["naive"]["average_accuracy"]
    )
    learners = facts["learners"]
    assert learners["recursive readout"]["average_accuracy"] > 0.97
    assert learners["joint bound (EWC's network)"]["average_accuracy"] > 0.9
    assert learners["naive (EWC's network)"]["average_accuracy"] < 0.2 < learners["EWC"]["average_accuracy"]
    assert len(list((tmp_path / "demo" / "figures").glob("*.png"))) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["evaluate", "mlp.naca_split-digit"], "did you mean 'mlp.naca_split-digits'"),
        (["evaluate", "mlp.naca_split-digits", "--scenario", "split-digts"], "did you mean 'split-digits'"),
        (["run", "naca-digits"], "unknown experiment 'naca-digits'"),
        (["run", "nowhere.yaml"], "there is no config nowhere.yaml"),
        (["zoo", "show", "nothing"], "unknown zoo entry 'nothing'"),
        (["zoo", "add", "nowhere"], "only a finished run"),
        (["zoo", "list", "--rule", "ecw"], "unknown rule 'ecw'; did you mean 'ewc'"),
        (["zoo", "list", "--network", "mpl"], "did you mean 'mlp'"),
        (["zoo", "list", "--scenario", "digit"], "did you mean 'digits'"),
        (["run", "mnist-naca"], "There are "),
        (["run", "mlp.ewc_split-digits", "--scenario", "split-nothing"], "There are "),
        (["bench", "ruls"], "lit-meta bench --list"),
    ),
)
def test_bad_input_is_one_line_and_status_1(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"rule": {"name": "ecw"}}, "unknown rule 'ecw'"),
        ({"rule": {"name": "ewc", "force": 1.0}}, "It takes strength, mode"),
        ({"network": {"name": "mpl"}}, "unknown network 'mpl'"),
        ({"network": {"inputs": 64}}, "network needs a name"),
        ({"scenario": {"name": "split-nothing"}}, "unknown scenario"),
        ({"seeds": []}, "seeds must be"),
        ({"protocol": "none"}, "protocol"),
        ({"epochs": 3}, "epochs"),
        ({"max_epochs": "many"}, "max_epochs"),
        ({"overrides": {"winner": {}}}, "winner"),
        ({"optimizer": {"class_path": "torch.optim.Nope"}}, "Nope"),
        ({"optimizer": {"class_path": "nomodule.SGD"}}, "nomodule"),
        ({"optimizer": {"class_path": "torch.optim.SGD", "lr": 0.1}}, "arguments go into init_args"),
        ({"seeds": [1.5]}, "1.5"),
        ({"name": "../elsewhere"}, "the name of a folder"),
        ({"max_epoch": 2}, "no key 'max_epoch'; did you mean 'max_epochs'?"),
        (
            {"overrides": {"joint": {"max_epoch": 2}}},
            "overrides.joint has no key 'max_epoch'; did you mean 'max_epochs'?",
        ),
        ({"overrides": {"joint": {"network": {"hiden": [2]}}}}, "no argument 'hiden'; did you mean 'hidden'?"),
        ({"controls": {"other": {"rule": {"name": "ewc", "strenght": 1}}}}, "did you mean 'strength'?"),
        ({"controls": 3}, "controls must be a mapping"),
        (
            {"network": {"name": "mlp", "inputs": 64, "hidden": [2], "classes": 10, "bias": "no"}},
            "bias must be true or false",
        ),
        (
            {"network": {"name": "mlp", "inputs": 64, "hidden": {}, "classes": 10}},
            "hidden must be a list of whole numbers",
        ),
        ({"scenario": {"name": "split-digits", "experiences": "two"}}, "experiences must be a whole number or null"),
        ({"batching": "no"}, "batching must be true or false"),
        ({"loss": "msee"}, "unknown loss 'msee'; did you mean 'mse'?"),
    ),
)
def test_a_bad_config_is_one_line_and_leaves_nothing(small_config, tmp_path, change, message, capsys):
    content = {**yaml.safe_load(small_config.read_text()), **change}
    small_config.write_text(yaml.safe_dump(content))
    assert main(["run", str(small_config), "--run_dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"{{{: [", "while parsing a flow node"),
        (b"", ""),
        (b"- 1", ""),
        (b"name: caf\xe9", "is not text in UTF-8"),
    ),
)
def test_a_config_that_is_no_mapping_is_one_line_with_its_name(tmp_path, content, message, capsys):
    (tmp_path / "bad.yaml").write_bytes(content)
    assert main(["run", str(tmp_path / "bad.yaml")]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "bad.yaml" in error
    assert len(error.splitlines()) == 1


def test_a_run_that_failed_before_its_first_result_may_be_begun_anew(small_config, tmp_path, capsys):
    arguments = ["run", str(small_config), "--run_dir", str(tmp_path / "run"), "--learners", "naive"]
    assert main([*arguments, "--set", "network.inputs=63"]) == 1
    assert "63 values" in capsys.readouterr().err
    assert main([*arguments, "--set", "seeds=[0]"]) == 0
    assert main([*arguments, "--set", "seeds=[0]"]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(small_config, tmp_path, capsys):
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is one")
    assert main(["run", str(small_config), "--run_dir", str(tmp_path / "run"), "--accelerator", "gpu"]) == 1
    assert "Trainer refuses its arguments" in capsys.readouterr().err


def test_names_need_not_be_ascii(small_config, tmp_path):
    arguments = ["--learners", "naive", "--set", "name=naïve-λ-数字", "seeds=[0]"]
    folder = tmp_path / "läufe"
    assert main(["run", str(small_config), "--run_dir", str(folder), *arguments, "--json", str(folder / "ö.json")]) == 0
    assert json.loads((folder / "ö.json").read_text())["name"] == "naïve-λ-数字"
    assert main(["report", str(folder)]) == 0


@pytest.mark.parametrize("target", ("a-file/facts.json", "a-folder"))
def test_a_json_file_that_cannot_be_written_is_refused_before_the_work(small_config, tmp_path, target, capsys):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    arguments = ["run", str(small_config), "--run_dir", str(tmp_path / "run")]
    assert main([*arguments, "--json", str(tmp_path / target)]) == 1
    assert "a-f" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", (["run", "{config}"], ["demo"]))
def test_a_run_folder_that_cannot_be_made_is_refused_before_the_work(small_config, tmp_path, command, capsys):
    (tmp_path / "a-file").write_text("")
    arguments = [part.format(config=small_config) for part in command]
    for folder in (tmp_path / "a-file", tmp_path / "a-file" / "run"):
        assert main([*arguments, "--run_dir", str(folder)]) == 1
        told = capsys.readouterr()
        assert "is a file, not a folder" in told.err
        assert not told.out


@pytest.fixture
def finished(small_config, tmp_path):
    """A run of the rule alone."""
    run_dir = tmp_path / "run"
    assert main(["run", str(small_config), "--run_dir", str(run_dir), "--learners", "rule", "--set", "seeds=[0]"]) == 0
    return run_dir


@pytest.mark.filterwarnings(
    "always:.*is damaged:UserWarning"
)  # The command says it in one line, which is what is tested.
@pytest.mark.parametrize(
    ("file", "content"), (("state.json", b"{"), ("state.safetensors", b""), ("manifest.json", b"{}"))
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(small_config, finished, file, content, capsys):
    paths = sorted((finished / "rule" / "seed-0" / "checkpoints").glob(f"*/{file}"))
    arguments = ["run", str(small_config), "--run_dir", str(finished), "--learners", "rule", "--set", "seeds=[0]"]
    before = json.loads((finished / "metrics.json").read_text())["rule"]["accuracy_matrix"]
    assert len(paths) == 2
    paths[1].write_bytes(content)
    assert main([*arguments, "--resume"]) == 0
    error = capsys.readouterr().err.strip()
    assert "is damaged" in error
    assert paths[1].parent.name in error
    assert len([line for line in error.splitlines() if not line.startswith("[")]) == 1
    assert json.loads((finished / "metrics.json").read_text())["rule"]["accuracy_matrix"] == before
    for path in sorted((finished / "rule" / "seed-0" / "checkpoints").glob(f"*/{file}")):
        path.write_bytes(content)
    assert main([*arguments, "--resume"]) == 1
    error = capsys.readouterr().err.strip()
    assert "no checkpoint in" in error
    assert len(error.splitlines()) == 1
    assert main([*arguments, "--overwrite"]) == 0
    assert json.loads((finished / "metrics.json").read_text())["rule"]["accuracy_matrix"] == before


def test_checkpoints_without_their_config_are_not_gone_on_with(small_config, finished, capsys):
    (finished / "config.yaml").unlink()
    assert main(["run", str(small_config), "--run_dir", str(finished), "--resume", "--set", "seeds=[0]"]) == 1
    assert "no config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("command", (["report"], ["zoo", "add"]))
@pytest.mark.parametrize("content", (b"{", b"[]", b"\xff"))
def test_a_damaged_result_is_named(finished, command, content, tmp_path, capsys):
    (finished / "metrics.json").write_bytes(content)
    zoo_option = ["--zoo", str(tmp_path / "zoo")] if command[0] == "zoo" else []
    assert main([*command, str(finished), *zoo_option]) == 1
    error = capsys.readouterr().err
    assert "metrics.json" in error
    assert "Traceback" not in error


def test_one_experience_of_all_classes_needs_no_joint_learner_to_enter_the_zoo(small_config, tmp_path):
    run_dir, to = tmp_path / "one", tmp_path / "zoo"
    chosen = ["scenario={name: split-digits, experiences: 1}", "controls={frozen: {rule: {name: naca, strength: 0.0}}}"]
    learners = ["--learners", "rule", "naive", "frozen"]
    assert main(["run", str(small_config), "--run_dir", str(run_dir), *learners, "--set", *chosen]) == 0
    assert main(["zoo", "add", str(run_dir), "--zoo", str(to)]) == 0
    card = json.loads((to / "small" / "config.json").read_text())
    assert list(card["results"]) == ["seed_average_accuracy", "rule", "naive", "frozen"]
    page = (to / "small" / "README.md").read_text()
    assert "all classes in one experience" in page
    assert "| frozen |" in page


def test_a_run_without_its_bounds_is_no_zoo_entry(finished, tmp_path, capsys):
    assert main(["zoo", "add", str(finished), "--zoo", str(tmp_path / "zoo")]) == 1
    assert "no naive and no joint learner" in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("arguments", ([], ["evaluate"], ["dance"], ["evaluate", "x", "--protocol", "leaky"]))
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_missing_data_says_what_where_and_how(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIT_META_DATA", str(tmp_path))
    monkeypatch.setattr(
        "torchvision.datasets.MNIST.download", lambda self: (_ for _ in ()).throw(RuntimeError("offline"))
    )
    config = {
        "name": "m",
        "scenario": {"name": "split-mnist"},
        "network": {"name": "mlp", "inputs": 784, "hidden": [4], "classes": 10},
        "seeds": [0],
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "m.yaml"), "--run_dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path) in error.replace("\n", "")
    assert "LIT_META_DATA" in error


def test_the_installed_command_runs():
    done = subprocess.run([sys.executable, "-m", "lit_meta", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lit-meta ")


def test_names_of_entries_and_their_experiments_agree():
    for name in zoo.names():
        assert zoo.card(name)["experiment"]["name"] == name


def test_two_networks_are_compared_class_by_class(tmp_path, capsys):
    names = ["patch-net.recursive-readout_split-digits", "mlp.ewc_split-digits"]
    assert main(["retention", *names, "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())["retention"]
    assert facts["before"] > 0.95
    assert facts["after"] < facts["before"]
    assert sum(c["lost"] for c in facts["classes"]) > 100
    assert "taken for" in " ".join(capsys.readouterr().out.split())

"""Options of the commands: settings of a config, what is printed, and how a wrong one is answered."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from lit_meta.cli import main, parser
from lit_meta.cli.parsing import command_line, commands_of
from lit_meta.experiments import load_experiment

NAME = "mlp.ewc_split-digits"


def printed(capsys, *arguments: str) -> dict:
    assert main(["run", *arguments, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_the_printed_config_is_the_experiment_and_runs_as_it_is(capsys, tmp_path):
    content = printed(capsys, NAME)
    assert content == load_experiment(NAME).to_dict()
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(content))
    assert printed(capsys, str(tmp_path / "again.yaml")) == content
    assert printed(capsys, "--config", str(tmp_path / "again.yaml")) == content


@pytest.mark.parametrize(
    ("arguments", "place", "value"),
    (
        (["--max_epochs", "7"], ["max_epochs"], 7),
        (["--max_epochs=7"], ["max_epochs"], 7),
        (["--rule.strength", "50"], ["rule", "strength"], 50),
        (["--rule.strength", "1e-4"], ["rule", "strength"], 1e-4),
        (["--rule.strength=-1"], ["rule", "strength"], None),
        (["--rule", "{name: si, damping: 0.2}"], ["rule"], {"name": "si", "damping": 0.2}),
        (["--rule", "naca", "--rule.strength", "0.5"], ["rule"], {"name": "naca", "strength": 0.5}),
        (["--rule", "[si, xdg]", "--rule.1.gated", "0.6"], ["rule", 1], {"name": "xdg", "gated": 0.6}),
        (["--optimizer.init_args.lr", "0.25"], ["optimizer", "init_args", "lr"], 0.25),
        (["--overrides.joint.max_epochs", "9"], ["overrides", "joint", "max_epochs"], 9),
        (["--controls.weak.rule", "{name: ewc, strength: 1}"], ["controls", "weak", "rule", "strength"], 1),
        (["--network.hidden", "[3, 4]", "--network.bias", "false"], ["network", "hidden"], [3, 4]),
        (["--seeds", "[0, 1]"], ["seeds"], [0, 1]),
        (["--note", "a: b"], ["note"], "a: b"),
        (["--name", "2024"], ["name"], "2024"),
        (["--set", "seeds=[5]", "rule.strength=3"], ["rule", "strength"], 3),
        (["--set", "max_epochs=2", "--max_epochs", "3", "--set", "max_epochs=4"], ["max_epochs"], 4),
    ),
)
def test_a_setting_changes_what_it_names(arguments, place, value, capsys):
    if value is None:  # The value reaches the rule, which refuses it.
        assert load_experiment(NAME, ["rule.strength=-1"]).rule["strength"] == -1
        return
    content = printed(capsys, NAME, *arguments)
    for key in place:
        content = content[key]
    assert content == value
    assert type(content) is type(value)


def test_settings_may_stand_before_the_config(capsys):
    assert printed(capsys, "--rule.strength", "50", "--max_epochs", "2", NAME)["rule"]["strength"] == 50


def test_files_take_the_place_of_the_keys_they_have(capsys, tmp_path):
    (tmp_path / "short.yaml").write_text("max_epochs: 1\nseeds: [0]\nrule: {name: ewc, strength: 1e-3}")
    content = printed(capsys, NAME, "--config", str(tmp_path / "short.yaml"), "--seeds", "[4]")
    assert (content["max_epochs"], content["seeds"], content["rule"]["strength"]) == (1, [4], 1e-3)
    assert content["network"] == load_experiment(NAME).network


@pytest.mark.parametrize(
    ("setting", "message"),
    (
        ("rule.strenght=1", "did you mean 'strength'?"),
        ("rule.strength=strong", "strength must be a number, got 'strong'"),
        ("rule.strength.x=1", "leads nowhere"),
        ("optimizer.lr=1", "arguments go into init_args"),
        ("overrides.jiont.max_epochs=1", "a learner in overrides must be one of"),
        ("max_epochs", "a setting is KEY=VALUE"),
        ("max_epoch=1", "did you mean 'max_epochs'?"),
        ("seeds=[0", "is not YAML"),
    ),
)
def test_a_wrong_setting_is_one_line(setting, message, capsys):
    assert main(["run", NAME, "--print_config", "--set", setting]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_part_of_a_list_of_rules_needs_its_position(capsys):
    assert main(["run", NAME, "--print_config", "--rule", "[si, xdg]", "--rule.gated", "0.6"]) == 1
    assert "give a position, from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["rn"], "did you mean run?"),
        (["zoo", "shw"], "did you mean show?"),
        (["run", NAME, "--max_epoch", "2"], "did you mean --max_epochs?"),
        (["run", NAME, "--rul.strength", "2"], "did you mean --rule.strength?"),
        (["run", NAME, "--learner", "rule"], "did you mean --learners?"),
        (["run", NAME, "--rule.strength"], "--rule.strength: expected a value"),
        (["sweep", NAME, "--max_epochs", "2"], "unrecognized arguments: --max_epochs"),
        (["bench", "--ful"], "did you mean --full?"),
    ),
)
def test_a_wrong_option_names_the_nearest_and_does_nothing(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_without_a_config_says_what_is_missing(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2
    assert "a CONFIG is missing" in capsys.readouterr().err


def every_command(top, path=()):
    for name, command in commands_of(top).items():
        yield (*path, name), command
        yield from every_command(command, (*path, name))


def test_every_command_has_an_example_that_its_parser_takes():
    import shlex

    commands = dict(every_command(parser()))
    assert len(commands) >= 19
    for path, command in commands.items():
        example = command.epilog.removeprefix("example: ")
        assert example.startswith(("lit-meta", 'eval "$(lit-meta')), path
        if example.startswith("lit-meta"):
            parser().parse_args(shlex.split(example.split(" >")[0])[1:])


def test_the_command_line_of_a_run_gives_its_options_again():
    top = parser()
    run = commands_of(top)["run"]
    given = ["run", NAME, "--learners", "rule", "naive", "--evaluate_every", "5", "--record_weight_change"]
    options = top.parse_args([*given, "--rule.strength", "5", "--set", "note=two words", "--json", "a.json"]).run
    line = command_line(run, options, {"json": None, "run_dir": "runs/a"})
    assert line == (
        f"lit-meta run {NAME} --run_dir runs/a --learners rule naive --record_weight_change --evaluate_every 5 "
        "--rule.strength 5 --note 'two words'"
    )


@pytest.mark.parametrize("command", ("rules", "networks", "sources", "scenarios"))
def test_listings_say_what_there_is_and_where_it_comes_from(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LIT_META_DATA", str(tmp_path))
    assert main([command, "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    shown = capsys.readouterr().out
    # A scenario is a kind and a source, which are told once each.
    names = {part for name in facts for part in name.split("-", 1)} if command == "scenarios" else facts
    assert all(name in shown for name in names)
    assert all(
        fact["summary"] and fact["origin"].startswith("lit_meta.") and not fact["foreign"] for fact in facts.values()
    )
    if command == "sources":
        assert (facts["digits"]["classes"], facts["digits"]["here"], facts["mnist"]["here"]) == (10, True, False)
    if command == "scenarios":
        assert facts["permuted-omniglot-latin"]["classes"] == 26
        assert (facts["online-mnist"]["train"], facts["online-mnist"]["test"]) == (60_000, 10_000)


def test_what_sources_declare_is_what_they_load():
    from lit_meta.data.sources import SOURCES, load_source
    from lit_meta.data.sources.catalog import facts_of

    source = load_source("digits")
    facts = facts_of(SOURCES, "digits")
    assert (facts.classes, facts.train, facts.test, facts.shape) == (
        len(source.classes),
        len(source.train_y),
        len(source.test_y),
        source.input_shape,
    )


def test_a_broken_package_does_not_hide_the_others(tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    from lit_meta.rules.registry import RULES

    broken = EntryPoint(name="broken", value="no_such_module:Rule", group=RULES.group)
    monkeypatch.setitem(RULES.__dict__, "_foreign", {"broken": [broken]})
    assert main(["rules", "--json", str(tmp_path / "rules.json")]) == 0
    facts = json.loads((tmp_path / "rules.json").read_text())
    assert "cannot be used" in facts["broken"]["summary"]
    assert facts["broken"]["foreign"]
    assert facts["mesu"]["summary"]


def test_completion_knows_commands_and_settings(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("audit", "--matmul_precision", "--evaluate_every"))


def test_help_needs_no_heavy_library():
    code = (
        "import sys\nfrom lit_meta.cli import parser\nparser().format_help()\n"
        "heavy = {'avalanche', 'lightning', 'torch', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "command",
    (["--help"], ["rules"], ["networks"], ["sources"], ["scenarios"], ["zoo", "list"]),
    ids=lambda command: command[0],
)
def test_what_only_lists_imports_no_heavy_library(command):
    # Modules are counted, not seconds, which depend on the machine: PyTorch alone has more than a thousand.
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom lit_meta.cli import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'avalanche', 'numpy', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert len(sys.modules) - len(before) < 450, len(sys.modules) - len(before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

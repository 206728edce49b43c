"""Configs changed at random: each still describes an experiment, or is refused in one line that names what is wrong."""

from __future__ import annotations

import copy
import math
import random
import re
from dataclasses import replace

import pytest
import yaml

from lit_meta.cli import main
from lit_meta.cli.errors import is_bad_input
from lit_meta.experiments.checks import check_specs
from lit_meta.experiments.loading import load_experiment
from lit_meta.experiments.run import benchmarks_of

CONFIG = """
name: mutated
scenario: {name: split-digits, experiences: 2}
network: {name: mlp, inputs: 64, hidden: [20, 10], classes: 10, activation: relu, output: identity, bias: true}
rule: [{name: ewc, strength: 5.0, mode: online, decay: 0.9}, {name: xdg, gated: 0.5}]
loss: cross_entropy
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
max_epochs: 2
batch_size: 32
protocol: standard
seeds: [0, 1]
overrides: {joint: {max_epochs: 3, network: {hidden: [5]}, optimizer: {name: adam, lr: 0.01}}}
controls: {other-rule: {rule: {name: si, strength: 0.1}}}
batching: false
matmul_precision: highest
note: none
"""
VALUES = (
    *(None, True, "", "no", "1", "x/y", "..", "\x1b[2J", "torch.optim.SGD", "os", "os.nothing", "nothing.at.all"),
    *(0, -1, 1, 3, 10**6, 10**30, 0.0, -0.5, 1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *([], [0], [[]], ["a", 1], [None], [20_000_000], [math.nan], {}, {"a": 1}, {"name": "nothing"}, {"name": 3}),
    *({"name": "ewc"}, {"class_path": None}, {"class_path": "torch.optim.SGD", "lr": 0.1}, {"hidden": {}}),
)


def places(value, path=()):
    """Every place in nested mappings and lists."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(values, chance):
    """A copy with one thing changed, and the place."""
    values = copy.deepcopy(values)
    path = chance.choice(list(places(values)))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    how = chance.choice(("replace", "replace", "replace", "remove", "add", "rename"))
    if how == "remove":
        del inner[path[-1]]
    elif how == "add" and isinstance(inner, dict):
        inner[chance.choice(("lr", "nothing", "seed", "Name", "init_args", 3, "<b>", "hidden "))] = chance.choice(
            VALUES
        )
    elif how == "rename" and isinstance(inner, dict):
        inner[f"{path[-1]}s"] = inner.pop(path[-1])
    else:
        inner[path[-1]] = chance.choice(VALUES)
    return values, path


def refusal(file):
    """The error that a config is refused with, or None."""
    try:
        experiment = load_experiment(str(file))
        check_specs(experiment)
        benchmarks_of(replace(experiment, seeds=[0]))
    except Exception as error:
        return error
    return None


def names_the_place(error, path):
    """Whether a message names the key that was changed, or one above it."""
    dotted = ".".join(str(key) for key in path)
    said = str(error)
    above = [".".join(str(key) for key in path[:n]) for n in range(1, len(path) + 1)]
    return dotted in said or any(re.search(rf"(?<![\w.]){re.escape(key)}", said) for key in above)


def test_a_mutated_config_is_an_experiment_or_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_meta.experiments.checks.memory_of_the_machine", lambda: 100 << 20)
    chance = random.Random(0)
    values = yaml.safe_load(CONFIG)
    file = tmp_path / "mutated.yaml"
    refused, wrong = 0, []
    for number in range(1000):
        changed, path = mutated(values, chance)
        file.write_text(yaml.dump(changed, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
        error = refusal(file)
        if error is None:
            continue
        refused += 1
        said = str(error).removeprefix(f"{file}: ")
        if not (is_bad_input(error) and said.isprintable() and names_the_place(said, path)):
            wrong.append(f"{number}, at {path}: {type(error).__name__}: {said[:300]}")
    assert not wrong, "\n".join(wrong)
    assert 500 < refused < 1000
    assert [item.name for item in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    (
        ("lr: 0.1,", "lr: 0,", "lr"),
        ("lr: 0.1,", "lr: .nan,", "lr"),
        ("lr: 0.1,", "lr: .inf,", "lr"),
        ("lr: 0.1,", "lr: -1,", "learning rate"),
        ("lr: 0.01", "lr: 0", "lr"),
        ("max_epochs: 2", "max_epochs: 0", "max_epochs"),
        ("max_epochs: 3", "max_epochs: -1", "max_epochs"),
        ("batch_size: 32", "batch_size: 0", "batch_size"),
        ("seeds: [0, 1]", "seeds: [-1]", "seeds"),
        ("seeds: [0, 1]", "seeds: ['0']", "seeds"),
        ("strength: 5.0", "strength: -5", "strength"),
        ("strength: 0.1", "strength: .nan", "strength"),
        ("hidden: [5]", "hidden: [0]", "hidden"),
        ("hidden: [5]", "hidden: [100000000]", "memory"),
        ("init_args: {lr: 0.1, momentum: 0.9}", "lr: 0.1", "lr"),
        ("name: mutated", 'name: "\\e[2J"', "name"),
        ("note: none", "note: none\nnote: twice", "note"),
        ("note: none", "note: {[1]: 2}", "line 16"),
        ("note: none", "note: &a [*a]", "contains itself"),
        ("note: none", f"note: {'x' * 2_000_000}", "characters"),
        ("note: none", f"note: {'[' * 5000}{']' * 5000}", "nested"),
    ),
)
def test_a_wrong_value_is_a_line_that_names_the_key_and_leaves_no_folder(tmp_path, capsys, monkeypatch, old, new, key):
    monkeypatch.setattr("lit_meta.experiments.checks.memory_of_the_machine", lambda: 100 << 20)
    assert old in CONFIG
    (tmp_path / "mutated.yaml").write_text(CONFIG.replace(old, new, 1))
    assert main(["run", str(tmp_path / "mutated.yaml"), "--run_dir", str(tmp_path / "run")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert key in lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 1200
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    (
        ("lr: 0.01}", "lr: 0}", "overrides.joint.optimizer.lr:"),
        (
            "{class_path: torch.optim.SGD, init_args: {lr: 0.1,",
            "{class_path: torch.optim.SGD, init_args: {lr: .inf,",
            "lr",
        ),
        ("strength: 0.1", "strenght: 0.1", "controls.other-rule.rule.strenght:"),
        ("gated: 0.5", "gated: 5", "rule.1.gated:"),
        ("bias: true", 'bias: "no"', "network.bias:"),
        ("hidden: [20, 10]", "hidden: {}", "network.hidden:"),
        ("experiences: 2", "experiences: 3", "scenario.experiences:"),
        ("{max_epochs: 3,", "{max_epochs: 0,", "overrides.joint.max_epochs"),
        ("{name: adam, lr: 0.01}", "{class_path: torch.optim.Adam, lr: 1.0e-9}", "overrides.joint.optimizer: 'lr'"),
    ),
)
def test_the_message_begins_with_the_dotted_key(tmp_path, old, new, key):
    assert old in CONFIG
    (tmp_path / "mutated.yaml").write_text(CONFIG.replace(old, new, 1))
    error = refusal(tmp_path / "mutated.yaml")
    said = str(error).removeprefix(f"{tmp_path / 'mutated.yaml'}: ")
    assert key in said if key == "lr" else said.startswith(key), said

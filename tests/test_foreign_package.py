"""A package from outside adds a rule, a network, a source and a scenario by name, without an edit here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "docs" / "extend"


@pytest.fixture(scope="module")
def lit_meta_command(tmp_path_factory):
    """Runs ``lit-meta`` where the example is installed."""
    site = tmp_path_factory.mktemp("site")
    pip = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site), str(PACKAGE)]
    subprocess.run([sys.executable, "-m", "pip", *pip], check=True, capture_output=True)
    folder = tmp_path_factory.mktemp("work")

    def run(*arguments: str) -> dict:
        facts = folder / "facts.json"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
        command = [sys.executable, "-m", "lit_meta", *arguments, "--json", str(facts)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(facts.read_text())

    return run


def test_an_experiment_names_a_rule_a_network_a_source_and_a_scenario_of_another_package(lit_meta_command):
    report = lit_meta_command("run", str(PACKAGE / "experiment.yaml"), "--run_dir", "runs/rings")
    assert report["scenario"] == {"name": "rotating", "experiences": 3}
    assert len(report["rule"]["accuracy_matrix"]) == 3
    assert report["rule"]["accuracy_matrix"][0][0] > 0.8
    # The rule takes part: what it protects differs from plain training.
    assert report["rule"]["accuracy_matrix"] != report["naive"]["accuracy_matrix"]
    assert report["rule"]["cost"]["state_bytes"] > 0


def test_its_source_has_the_scenarios_of_this_package(lit_meta_command):
    report = lit_meta_command(
        *("run", str(PACKAGE / "experiment.yaml"), "--run_dir", "runs/split", "--learners", "naive"),
        *("--set", "scenario={name: split-rings, experiences: 2}", "seeds=[0]", "max_epochs=1"),
    )
    assert len(report["naive"]["accuracy_matrix"]) == 2


@pytest.mark.parametrize(("command", "name"), (("rules", "freezing"), ("scenarios", "rotating")))
def test_lists_show_where_a_name_comes_from(lit_meta_command, command, name):
    assert name in json.dumps(lit_meta_command(command))


def test_the_page_shows_the_package():
    page = (ROOT / "docs" / "extend.md").read_text()
    for path in (*PACKAGE.glob("lit_meta_example/[!_]*.py"), PACKAGE / "pyproject.toml", PACKAGE / "experiment.yaml"):
        assert path.read_text().rstrip() in page, path.name

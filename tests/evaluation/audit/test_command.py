"""``lit-meta audit``: its verdict is the exit status."""

from __future__ import annotations

import json

import yaml

from lit_meta.cli import main
from lit_meta.networks import build_network
from lit_meta.utils.io import save_tensors


def test_a_zoo_entry_that_does_not_leak_passes(tmp_path, capsys):
    facts_file = tmp_path / "facts.json"
    assert main(["audit", "mlp.naca_split-digits", "--singles", "50", "--json", str(facts_file)]) == 0
    facts = json.loads(facts_file.read_text())
    assert facts["passed"]
    assert {c["name"]: c["samples"] for c in facts["conditions"]}["single"] == 50
    assert "passed" in capsys.readouterr().out


def test_a_run_with_the_published_gate_fails_with_status_1_and_its_reason(tmp_path, capsys):
    network = {"name": "mlp", "inputs": 64, "hidden": [50], "classes": 10, "gate": "batch", "seed": 1}
    experiment = {"name": "leaky", "scenario": {"name": "split-digits"}, "network": network}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment))
    save_tensors(tmp_path / "model.safetensors", build_network(**network).state_dict())
    assert main(["audit", str(tmp_path), "--singles", "50", "--batch_size", "64"]) == 1
    out = capsys.readouterr().out
    assert "cause: gate: the gate opens units by the batch mean" in out
    assert "failed" in out


def test_an_unknown_name_is_one_clear_line(capsys):
    assert main(["audit", "mlp.naca_split-digit"]) == 1
    assert "did you mean 'mlp.naca_split-digits'" in capsys.readouterr().err

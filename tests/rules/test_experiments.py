"""The experiments on permuted digits, shortened: what a rule promises over naive fine-tuning, it keeps."""

from __future__ import annotations

import pytest

from lit_meta.experiments.run import load_experiment, run_seed

SHORT = ["--scenario.experiences=3", "--max_epochs=5"]


@pytest.fixture(scope="module")
def naive() -> float:
    experiment = load_experiment("permuted-digits-ewc", SHORT)
    return run_seed(experiment, "naive", 0, accelerator="cpu")[0].average_accuracy


@pytest.mark.parametrize("rule", ("ewc", "mas", "si"))
def test_a_rule_forgets_less_than_naive_training(rule, naive):
    experiment = load_experiment(f"permuted-digits-{rule}", SHORT)
    found, module = run_seed(experiment, "rule", 0, accelerator="cpu")
    assert found.average_accuracy > naive + 0.03
    assert float(found.accuracy_matrix[0, 0]) > 0.85
    assert "importance" in module.plasticity.rules[0].state

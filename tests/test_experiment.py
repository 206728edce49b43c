"""Experiments: controls beside the rule, what differs for each learner, and the test by batching."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lit_meta.evaluation import accuracy_by_batching
from lit_meta.experiment import Experiment, load_experiment, run_experiment

CONFIG = """
name: small
scenario: {name: split-digits, experiences: 2}
network: {name: mlp, inputs: 64, hidden: [20], classes: 10, gate: batch, gate_margin: 0.3}
rule: {name: naca, reduction: sum}
loss: summed_mse
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01}}
batch_size: 64
protocol: paper
seeds: [0]
batching: true
overrides:
  naive: {network: {gate: none, gate_margin: null}}
controls:
  plasticity-off: {rule: {name: naca, strength: 0.0}}
  plain: {rule: []}
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return load_experiment(str(path))


def test_each_learner_is_the_experiment_with_its_differences(experiment):
    assert experiment.learners == ("rule", "naive", "joint", "plasticity-off", "plain")
    assert experiment.for_learner("rule").network == experiment.network
    naive = experiment.for_learner("naive")
    assert naive.network == {**experiment.network, "gate": "none", "gate_margin": None}
    assert naive.rule is None
    assert experiment.for_learner("plasticity-off").rule == {"name": "naca", "strength": 0.0}
    assert not experiment.for_learner("plain").rule
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    with pytest.raises(ValueError, match="a learner must be one of"):
        experiment.for_learner("nobody")


@pytest.mark.parametrize("name", ("rule", "with space", "a/b"))
def test_a_control_needs_a_name_of_its_own(experiment, name):
    values = experiment.to_dict()
    with pytest.raises(ValueError, match="a control has a name"):
        Experiment.from_dict({**values, "controls": {name: {}}})


def test_controls_run_on_the_same_stream_and_a_resumed_run_reports_the_same(experiment, tmp_path):
    chosen = ("rule", "plasticity-off")
    first = run_experiment(experiment, tmp_path / "run", learners=chosen, accelerator="cpu")
    assert set(first["rule"]["accuracy_by_batching"]) == {
        "one experience a batch",
        "shuffled",
        "one sample a batch",
    }
    assert first["rule"]["cost"]["state_bytes"] == first["plasticity-off"]["cost"]["state_bytes"] == 20 * 20 * 4
    again = run_experiment(experiment, tmp_path / "run", learners=chosen, accelerator="cpu", resume=True)
    for learner in chosen:
        assert json.dumps(again[learner]) == json.dumps(first[learner])


def test_batching_finds_a_network_that_looks_at_its_neighbours():
    class Neighbours(nn.Module):
        """Predicts the most frequent class of its batch."""

        def forward(self, x):
            return x.mean(0, keepdim=True).expand_as(x)

    y = torch.arange(4).repeat_interleave(50)
    x = torch.eye(4)[y]
    experiences = [(x[y == c], y[y == c]) for c in range(4)]
    # Every second sample looks like the next class: alone, it is taken for that.
    for samples, _ in experiences:
        samples[::2] = samples[::2].roll(1, dims=1) * 0.9
    found = accuracy_by_batching(Neighbours(), experiences, batch_size=50)
    assert found["one experience a batch"] == 1.0
    assert found["shuffled"] < 0.5
    assert found["one sample a batch"] == pytest.approx(0.5)

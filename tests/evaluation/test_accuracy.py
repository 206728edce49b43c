"""Evaluation: a prediction depends on its own sample, unless a protocol that says so is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_meta.core.errors import DivergedError
from lit_meta.evaluation.accuracy import accuracy_of, predict
from lit_meta.networks import build_network


class Majority(nn.Module):
    """Leaks: every sample gets the label that most of its batch would get."""

    def forward(self, x):
        votes = nn.functional.one_hot(x.argmax(1), x.shape[1]).sum(0)
        return votes.float().expand(x.shape[0], -1)


@pytest.fixture
def experiences():
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for label in range(4):
        x = 0.9 * torch.rand(100, 4, generator=generator)
        x[:60, label] += 1  # The label is right for 60 samples and random for the others.
        pairs.append((x, torch.full((100,), label)))
    return pairs


def test_the_paper_protocol_lets_a_leak_through_and_the_standard_one_does_not(experiences):
    paper = accuracy_of(Majority(), experiences, protocol="paper")
    standard = accuracy_of(Majority(), experiences, protocol="standard")
    assert paper.mean() == 1.0
    assert standard.mean() < 0.5


@pytest.mark.parametrize("gate", ({"gate": "sample"}, {"gate": "top_k", "gate_active_units": 3}, {"gate": "none"}))
def test_batch_size_and_composition_do_not_matter_without_a_leak(experiences, gate):
    network = build_network("mlp", inputs=4, hidden=[8], classes=4, seed=0, **gate)
    accuracies = [
        accuracy_of(network, experiences, batch_size=size, seed=seed, protocol=protocol)
        for size, seed, protocol in ((1, 0, "standard"), (7, 1, "standard"), (400, 2, "standard"), (33, 0, "paper"))
    ]
    assert all(torch.equal(accuracies[0], other) for other in accuracies[1:])


def test_modes_of_submodules_come_back(experiences):
    network = nn.Sequential(nn.Dropout(), nn.Linear(4, 4))
    network.train()
    network[0].eval()
    accuracy_of(network, experiences)
    assert network.training
    assert not network[0].training


def test_a_diverged_network_is_not_scored():
    network = nn.Linear(3, 3)
    network.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="diverged"):
        predict(network, torch.ones(2, 3))


def test_an_experience_without_samples_is_refused(experiences):
    with pytest.raises(ValueError, match="needs samples"):
        accuracy_of(Majority(), [*experiences, (torch.empty(0, 4), torch.empty(0, dtype=torch.long))])

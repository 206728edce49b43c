"""Both sides of the comparisons of whole streams do the same work."""

from __future__ import annotations

import pytest
import torch

from lit_meta.bench import stream_speed
from lit_meta.networks import build_network


def small():
    return build_network("mlp", inputs=784, hidden=[4], classes=10, activation="relu", output="identity", seed=0)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_bare_loop_and_fit_stream_take_the_same_steps(monkeypatch):
    benchmark = stream_speed.stream(samples=256, tests=20)  # One batch an experience: no order of batches.
    ours, bare = small(), small()
    stream_speed.through_fit_stream(benchmark, ours)()
    stream_speed.through_a_bare_loop(benchmark, bare)()
    assert not torch.equal(weights(ours), weights(small()))
    assert torch.allclose(weights(ours), weights(bare), atol=1e-7)
    theirs = small()
    stream_speed.through_avalanche(benchmark, theirs)()
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-7)


def test_both_evaluations_find_the_same_accuracies():
    benchmark = stream_speed.stream(samples=2, tests=300)
    network = small()
    ours = stream_speed.our_evaluation(benchmark, network)()
    assert ours.tolist() == pytest.approx(stream_speed.bare_evaluation(benchmark, network)())

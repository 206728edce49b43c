"""Both sides of the comparisons of whole streams do the same work."""

from __future__ import annotations

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lit_meta.bench import stream_speed
from lit_meta.networks import build_network
from lit_meta.rules import EWC, MAS, SI


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


@pytest.mark.parametrize(
    ("strategy", "plugin", "rule"),
    (
        ("EWC", "EWCPlugin", EWC(strength=1.0, mode="online")),
        ("SynapticIntelligence", "SynapticIntelligencePlugin", SI(strength=1.0)),
        ("MAS", "MASPlugin", MAS(strength=2.0)),
    ),
)
def test_avalanches_strategies_take_as_many_steps_and_tests_as_our_rules(strategy, plugin, rule, monkeypatch):
    from avalanche.training import plugins

    cls, penalized = getattr(plugins, plugin), []
    penalize = cls.before_backward

    def counted(self, learner, **kwargs):
        penalized.append(len(learner.mb_y))
        return penalize(self, learner, **kwargs)

    monkeypatch.setattr(cls, "before_backward", counted)
    benchmark = stream_speed.stream(samples=300, tests=20)  # A batch of 256 and one of 44 in either experience.

    def counts(work, model) -> tuple[int, int]:
        steps, tested = [], []
        stepped = register_optimizer_step_post_hook(lambda *_: steps.append(1))
        # Batches of one test set or of both; rules of importances are tried out on one of 8 samples.
        forward = model.register_forward_hook(
            lambda _, x, y: tested.append(len(y)) if len(y) % 20 == 0 and not torch.is_grad_enabled() else None
        )
        work()
        stepped.remove()
        forward.remove()
        return len(steps), sum(tested)

    ours, theirs = small(), small()
    by_us = counts(stream_speed.through_fit_stream(benchmark, ours, rule), ours)
    assert not penalized
    by_them = counts(stream_speed.through_avalanche(benchmark, theirs, strategy), theirs)
    assert by_us == by_them == (4, 3 * 2 * 20)
    assert penalized == [256, 44, 256, 44]


def test_a_strategy_that_avalanche_is_not_measured_with_is_refused():
    with pytest.raises(KeyError, match="LwF"):
        stream_speed.through_avalanche(None, small(), "LwF")


def test_both_evaluations_find_the_same_accuracies():
    benchmark = stream_speed.stream(samples=2, tests=300)
    network = small()
    ours = stream_speed.our_evaluation(benchmark, network)()
    assert ours.tolist() == pytest.approx(stream_speed.bare_evaluation(benchmark, network)())

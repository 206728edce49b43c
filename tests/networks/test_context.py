"""Contexts inferred by novelty: recruited without being told, and looked up from one sample alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.distributions import Normal

from lit_meta import MetaplasticModule, RecursiveReadout, audit, fit_stream, scenario
from lit_meta.networks import ContextNet, NoveltyGate


def inputs(offset, n=60, seed=0):
    return torch.rand(n, 5, generator=torch.Generator().manual_seed(seed)) + offset


def test_the_likelihood_is_that_of_gaussians_with_the_samples_moments():
    gate, x = NoveltyGate(5, 2, floor=0.1), inputs(0.0)
    for batch in x.split(20):
        gate(batch)
    deviation = (x.var(0, unbiased=False) + 0.1).sqrt()
    expected = Normal(x.mean(0), deviation).log_prob(x).sum(1)
    likelihood = gate.log_likelihood(x)[:, 0]
    torch.testing.assert_close(likelihood - likelihood[0], expected - expected[0], atol=1e-4, rtol=1e-4)


def test_novel_input_recruits_and_familiar_input_is_recognised():
    gate = NoveltyGate(5, 4)
    streams = [inputs(offset, seed=seed) for seed, offset in enumerate((0.0, 0.0, 3.0, 3.0, 0.0, -3.0))]
    contexts = [gate(x).unique().tolist() for x in streams]
    assert contexts == [[0], [0], [1], [1], [0], [2]]
    assert gate.recruited == 3


def test_more_contexts_than_there_are_go_to_the_likeliest():
    gate = NoveltyGate(5, 2)
    for offset in (0.0, 3.0, 3.5):
        gate(inputs(offset))
    assert gate.recruited == 2
    assert gate.eval()(inputs(3.5)).unique().tolist() == [1]


def test_evaluation_changes_nothing_and_no_sample_knows_of_another():
    gate = NoveltyGate(5, 3)
    for offset in (0.0, 3.0):
        gate(inputs(offset))
    before, x = copy.deepcopy(gate.state_dict()), torch.cat([inputs(0.0, seed=1), inputs(3.0, seed=2), inputs(9.0)])
    together = gate.eval()(x)
    assert together.tolist() == [int(gate(one)) for one in x.split(1)]
    assert all(torch.equal(value, before[name]) for name, value in gate.state_dict().items())


def test_a_gate_that_has_seen_nothing_has_one_context():
    assert NoveltyGate(5, 3).eval()(inputs(0.0)).unique().tolist() == [0]


def test_only_the_columns_of_the_context_are_active():
    network = ContextNet(5, units=4, classes=2, contexts=3, seed=0)
    for offset in (0.0, 3.0):
        network(inputs(offset))
    active = network.eval().features(torch.cat([inputs(0.0, 1), inputs(3.0, 1)])).view(2, 4, 3)
    assert bool((active[0, :, 0] > 0).any())
    assert bool((active[1, :, 1] > 0).any())
    assert not active[0, :, 1:].any()
    assert not active[1, :, [0, 2]].any()


def test_a_permuted_stream_is_learned_without_boundaries_and_the_audit_passes():
    """Three permutations of the digits: one readout would have to share its weights among them."""
    benchmark = scenario("permuted-digits", experiences=3)

    def learn(network, block):
        module = MetaplasticModule(network, rule=RecursiveReadout(ridge=1e-3, block=block))
        return fit_stream(module, benchmark, batch_size=100, accelerator="cpu").average_accuracy

    network = ContextNet(64, units=100, classes=10, contexts=4, seed=0)
    with_contexts = learn(network, 100)
    assert network.gate.recruited == 3
    assert with_contexts > learn(ContextNet(64, units=100, classes=10, contexts=1, seed=0), None) + 0.04
    assert with_contexts > 0.93
    assert audit(network, benchmark).passed


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"contexts": 0}, "contexts must be at least 1"),
        ({"novelty": 0.0}, "novelty must be above 0"),
        ({"floor": 0.0}, "floor must be above 0"),
    ),
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NoveltyGate(**{"inputs": 5, "contexts": 2, **options})

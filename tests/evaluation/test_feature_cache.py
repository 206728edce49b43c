"""Features that are kept while only the head changes: the same bits, and never those of another network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_meta import EWC, CriticalPeriod, MetaplasticModule, RecursiveReadout, fit_stream, scenario
from lit_meta.evaluation import feature_cache
from lit_meta.evaluation.feature_cache import KeptFeatures
from lit_meta.networks import ContextNet, PatchNet
from lit_meta.streams.learner import StreamLearner


def network_of():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()


def calls_of(layer):
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_only_the_head_runs_again():
    network = network_of()
    kept, batches, calls = KeptFeatures(network), torch.rand(4, 5, 3).unbind(), calls_of(network[0])
    with torch.inference_mode():
        for _ in range(3):
            with torch.inference_mode(False), torch.no_grad():
                network[3].weight.mul_(1.5)
            kept.begin()
            found = [kept(x) for x in batches]
    assert len(calls) == 4
    with torch.inference_mode():
        assert all(torch.equal(f, network(x)) for f, x in zip(found, batches, strict=True))


def test_features_belong_to_the_batch_and_not_to_its_turn():
    network = network_of()
    kept, batches, calls = KeptFeatures(network), torch.rand(4, 5, 3).unbind(), calls_of(network[0])
    # Another order, other batches, one batch twice, a part of one, the same numbers in another shape or type.
    turns = ([0, 1, 2], [2, 0, 1], [3], [3, 3, 0], [1])
    with torch.inference_mode():
        for turn in turns:
            kept.begin()
            for number in turn:
                assert torch.equal(kept(batches[number]), network(batches[number]))
        assert kept.kept == 4
        before = len(calls)
        for x in (batches[0][:3], batches[0].reshape(5, 3)[:, [1, 0, 2]], torch.zeros(0, 3)):
            assert torch.equal(kept(x), network(x))
        assert len(calls) == before + 6, "none of these was known"
        kept(batches[0].clone())
        assert len(calls) == before + 6, "a copy is the same batch"
        rolled = batches[0].roll(1, 0)  # The same sum.
        batches[0].copy_(rolled)
        assert torch.equal(kept(batches[0]), network(rolled)), "what was kept is not the caller's own tensor"


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16))
def test_the_type_of_the_numbers_belongs_to_the_batch(dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    kept = KeptFeatures(network)
    kept.begin()
    zeros = torch.zeros(2, 4)
    kept(zeros)
    kept(torch.zeros(2, 2, 2))
    assert kept.kept == 2
    network.to(dtype)
    kept.begin()
    x = zeros.to(dtype)
    assert torch.equal(kept(x), network(x))


def change_in_place(network):
    with torch.no_grad():
        network[0].weight.add_(1.0)


def change_behind_its_back(network):
    network[0].weight.data = network[0].weight.data + 1.0


def change_buffer(network):
    network[1].running_mean.add_(1.0)


@pytest.mark.parametrize("change", (change_in_place, change_behind_its_back, change_buffer))
def test_a_change_below_the_head_is_seen(change):
    network, x = network_of(), torch.rand(5, 3)
    kept = KeptFeatures(network)
    kept.begin()
    before = kept(x)
    change(network)
    kept.begin()
    after = kept(x)
    assert torch.equal(after, network(x))
    assert not torch.equal(after, before)


def test_an_output_that_is_not_the_heads_is_computed_in_full():
    network, x = nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1)).eval(), torch.rand(5, 3)
    kept, calls = KeptFeatures(network), calls_of(network[0])
    for _ in range(2):
        kept.begin()
        assert torch.equal(kept(x), network(x))
    assert kept.kept == 0
    assert len(calls) == 4


def test_features_computed_in_bfloat16_take_half_the_memory_and_have_the_same_bits():
    torch.manual_seed(0)
    wide = PatchNet((1, 8, 8), [8], [3], 2, expansion=50).eval()
    half = PatchNet((1, 8, 8), [8], [3], 2, expansion=50, precision="bfloat16").eval()
    x, taken = torch.rand(6, 1, 8, 8), []
    for network in (wide, half):
        kept = KeptFeatures(network)
        with torch.inference_mode():
            for _ in range(2):
                kept.begin()
                assert torch.equal(kept(x), network(x))
        assert kept.kept == 1
        taken.append(kept._bytes)
    assert taken == [6 * 50 * 4, 6 * 50 * 2]


def test_what_takes_too_much_memory_is_computed_anew(monkeypatch):
    monkeypatch.setattr(feature_cache, "_MOST_BYTES", 100)
    network, batches = network_of(), torch.rand(3, 5, 3).unbind()
    kept, calls = KeptFeatures(network), calls_of(network[0])
    for _ in range(2):
        kept.begin()
        for x in batches:
            kept(x)
    assert kept.kept == 0
    assert len(calls) == 6


@pytest.mark.parametrize(
    ("network", "rules"),
    (
        (lambda: PatchNet((1, 8, 8), [6], [3], 10, seed=0), lambda: [CriticalPeriod(samples=50), RecursiveReadout()]),
        (lambda: ContextNet(64, 30, 10, contexts=6, seed=0), lambda: RecursiveReadout(ridge=1e-3)),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)), EWC),
    ),
)
def test_a_stream_has_the_same_accuracy_with_and_without(network, rules, monkeypatch):
    def matrix():
        torch.manual_seed(0)
        module = MetaplasticModule(network(), rule=rules())
        benchmark = scenario("split-digits", experiences=5)
        return fit_stream(module, benchmark, batch_size=100, accelerator="cpu").accuracy_matrix

    found = matrix()
    monkeypatch.setattr(KeptFeatures, "serves", staticmethod(lambda rules: False))
    assert torch.equal(found, matrix())


@pytest.mark.parametrize(
    ("rules", "kept"),
    (([CriticalPeriod(samples=20, patches=100), RecursiveReadout(ridge=1e-2)], 0), (RecursiveReadout(ridge=1e-2), 1)),
)
def test_features_that_a_rule_will_change_are_not_kept_before(rules, kept, monkeypatch):
    counts = []
    fit = StreamLearner.fit

    def counted(self, *arguments, **options):
        counts.append(self._kept.kept)
        return fit(self, *arguments, **options)

    monkeypatch.setattr(StreamLearner, "fit", counted)
    module = MetaplasticModule(PatchNet((1, 8, 8), [6], [3], 10, seed=0), rule=rules)
    fit_stream(module, scenario("split-digits", experiences=2), batch_size=500, accelerator="cpu")
    assert counts == [kept, 1]

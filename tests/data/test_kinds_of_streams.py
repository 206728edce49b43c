"""Streams of every kind: unequal, blurry, repeated, online, unbounded; rotated, corrupted, gradual."""

from __future__ import annotations

import pytest
import torch

from lit_meta import MetaplasticModule, fit_stream, scenario
from lit_meta.data import SCENARIOS, joint, scenario_names, to_avalanche
from lit_meta.data.domain_streams import rotate
from lit_meta.data.lazy import LazyBenchmark
from lit_meta.data.module import experience_tensors
from lit_meta.networks import build_network
from lit_meta.rules import build_rule

KINDS = {
    "split": {"experiences": 5},
    "permuted": {"experiences": 3},
    "unequal": {"experiences": 4},
    "blurry": {"experiences": 4},
    "repeated": {"experiences": 8, "slots": 3},
    "online": {"experiences": 5, "samples": 200},
    "unbounded": {"experiences": 6, "samples": 30},
    "rotated": {"experiences": 3},
    "corrupted": {"corruptions": ["none", "noise", "blur", "contrast", "brightness", "occlusion"]},
    "gradual": {"experiences": 7},
}


def labels(stream):
    return [experience_tensors(e)[1] for e in stream]


def test_every_kind_is_here_and_has_a_name_over_every_source():
    assert set(KINDS) == {name for name in SCENARIOS if not SCENARIOS.is_foreign(name)}
    assert {f"{kind}-digits" for kind in KINDS} <= set(scenario_names())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_the_same_for_the_same_seed_describes_itself_and_can_be_learned(kind):
    benchmark, again = (scenario(f"{kind}-digits", seed=1, **KINDS[kind]) for _ in range(2))
    for one, other in zip(benchmark.train_stream, again.train_stream, strict=True):
        for a, b in zip(experience_tensors(one), experience_tensors(other), strict=True):
            assert torch.equal(a, b)
        assert sorted(one.classes_in_this_experience) == experience_tensors(one)[1].unique().tolist()
    assert benchmark.name == f"{kind}-digits"
    assert (benchmark.classes, benchmark.input_shape, len(benchmark.class_names)) == (10, (1, 8, 8), 10)
    assert set(torch.cat(labels(benchmark.test_stream)).tolist()) == set(range(10))
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
    result = fit_stream(module, benchmark, accelerator="cpu")
    assert result.accuracy_matrix.shape == (len(benchmark.train_stream), len(benchmark.test_stream))
    assert len(joint(benchmark).train_stream) == 1
    avalanche = to_avalanche(benchmark)
    assert type(avalanche).__module__.startswith("avalanche")
    x, y, *_ = avalanche.train_stream[-1].dataset[0]
    first = experience_tensors(benchmark.train_stream[-1])
    assert torch.equal(x, first[0][0])
    assert y == int(first[1][0])


def test_a_large_base_and_then_increments():
    benchmark = scenario("split-digits", first=4, experiences=4, seed=0)
    assert [len(e.classes_in_this_experience) for e in benchmark.train_stream] == [4, 2, 2, 2]
    assert benchmark.class_order == scenario("split-digits", experiences=10, seed=0).class_order
    with pytest.raises(ValueError, match="6 classes after the first 4"):
        scenario("split-digits", first=4, experiences=6)
    with pytest.raises(ValueError, match="first must be"):
        scenario("split-digits", first=10, experiences=2)


def test_groups_of_given_sizes():
    benchmark = scenario("split-digits", sizes=[5, 1, 4])
    assert [len(e.classes_in_this_experience) for e in benchmark.test_stream] == [5, 1, 4]
    for sizes in ([5, 5, 1], [0, 10], [5, "5"]):
        with pytest.raises((TypeError, ValueError), match="sizes"):
            scenario("split-digits", sizes=sizes)
    with pytest.raises(ValueError, match="sizes"):
        scenario("split-digits", sizes=[5, 5], experiences=2)
    with pytest.raises(ValueError, match="domain"):
        scenario("split-digits", sizes=[6, 4], form="domain")


def test_every_training_sample_is_learned_once_where_classes_are_divided():
    total = sum(len(y) for y in labels(scenario("split-digits").train_stream))
    for kind in ("unequal", "blurry", "repeated", "online", "gradual"):
        benchmark = scenario(f"{kind}-digits", seed=3, **KINDS[kind])
        assert sum(len(y) for y in labels(benchmark.train_stream)) == total
        index = torch.cat([e.tensor_view[0].index for e in benchmark.train_stream])
        assert len(index.unique()) == total


def test_disjoint_classes_stay_in_one_experience_and_blurry_ones_are_scattered():
    benchmark = scenario("blurry-digits", experiences=5, disjoint=0.5, blurred=0.3, seed=0)
    counts = torch.stack([torch.bincount(y, minlength=10) for y in labels(benchmark.train_stream)]).double()
    alone = (counts > 0).sum(0) == 1
    assert int(alone.sum()) == 5
    # Of a blurry class 30 % go to any of five experiences, so 76 % stay at home.
    home = counts.max(0).values / counts.sum(0)
    assert float(home[~alone].mean()) == pytest.approx(0.76, abs=0.05)
    assert all((scenario("blurry-digits", disjoint=1.0).train_stream[i].classes_in_this_experience) for i in range(5))


def test_repeated_classes_return_with_other_samples_and_equally_often():
    benchmark = scenario("repeated-digits", experiences=10, slots=3, seed=0)
    shown = [e.classes_in_this_experience for e in benchmark.train_stream]
    assert all(len(set(classes)) == 3 for classes in shown)
    assert torch.bincount(torch.tensor([c for classes in shown for c in classes])).tolist() == [3] * 10
    with pytest.raises(ValueError, match="slots must be from 4 to 10"):
        scenario("repeated-digits", experiences=3, slots=2)


def test_an_unbounded_stream_begins_as_a_shorter_one_and_costs_nothing_to_lengthen():
    short, long = (scenario("unbounded-digits", experiences=n, samples=20, seed=2) for n in (3, 10**9))
    for i in range(3):
        assert torch.equal(*(experience_tensors(b.train_stream[i])[1] for b in (short, long)))
    frequent = [torch.bincount(experience_tensors(long.train_stream[i])[1], minlength=10).argmax() for i in (0, 400)]
    assert frequent[0] != frequent[1]


def test_a_rule_that_consolidates_at_boundaries_is_refused_where_there_are_none():
    benchmark = scenario("online-digits", samples=500)
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10), rule=build_rule("ewc"))
    with pytest.raises(
        ValueError, match="EWC consolidates at the end of experiences, and online-digits has no boundaries"
    ):
        fit_stream(module, benchmark, accelerator="cpu")
    free = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10), rule=build_rule("upgd"))
    assert fit_stream(free, benchmark, accelerator="cpu").accuracy_matrix.shape == (3, 10)


def test_images_turn_as_torchvision_turns_them():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for degrees in (30.0, 90.0, 200.0):
        expected = functional.rotate(x, degrees, interpolation=functional.InterpolationMode.BILINEAR)
        assert torch.allclose(rotate(x, torch.tensor(degrees)), expected, atol=1e-4)


def test_a_gradual_stream_turns_from_nothing_to_the_largest_angle():
    benchmark = scenario("gradual-digits", experiences=10, largest=90.0, domains=2, seed=0)
    assert isinstance(benchmark, LazyBenchmark)
    view = benchmark.train_stream[0].dataset
    assert torch.allclose(view.tensors()[0][0], view.x[view.index[0]], atol=1e-5)
    view = benchmark.train_stream[-1].dataset
    turned = torch.rot90(view.x[view.index[-1]], 1, (-2, -1))
    assert torch.allclose(view.tensors()[0][-1], turned, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    (
        ("unequal-digits", {"experiences": 11}, "too few for 11"),
        ("blurry-digits", {"blurred": 2.0}, "blurred must be in"),
        ("online-digits", {"samples": 0}, "samples must be a whole number"),
        ("corrupted-digits", {"corruptions": ["nois"]}, "did you mean 'noise'"),
        ("corrupted-digits", {"severity": 9}, "severity must be"),
        ("rotated-digits", {"largest": 0.0}, "largest must be in"),
    ),
)
def test_arguments_out_of_range_are_refused(name, arguments, said):
    with pytest.raises((KeyError, ValueError), match=said):
        scenario(name, **arguments)

"""Replay: what the buffer holds, that half of what is learned is new, and that it is better than nothing."""

from __future__ import annotations

import pytest
import torch

from lit_meta.data import scenario
from lit_meta.data.replay import buffer_bytes, with_replay
from lit_meta.data.tensors import bulk_view, tensor_benchmark
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.run import run_experiment, run_seed


def numbered(sizes, first=0):
    """Experiences of numbers, each of which is there once, so that a sample says where it came from."""
    parts, start = [], first
    for label, size in enumerate(sizes):
        parts.append((torch.arange(start, start + size, dtype=torch.float32)[:, None], torch.full((size,), label)))
        start += size
    return parts


def values(experience):
    return bulk_view(experience).tensors()[0].flatten().int().tolist()


def test_every_experience_holds_its_own_samples_and_as_many_stored_ones():
    own = numbered([12, 12, 12])
    benchmark = with_replay(tensor_benchmark(own, own), 6, seed=3)
    first, second, third = map(values, benchmark.train_stream)
    assert sorted(first) == list(range(12))
    assert sorted(second[:12]) == list(range(12, 24))
    assert sorted(third[:12]) == list(range(24, 36))
    # Six of the first; then three of each, and three of the six before, each four times.
    assert len(set(second[12:])) == 6
    assert set(second[12:]) <= set(range(12))
    assert all(second[12:].count(value) == 2 for value in second[12:])
    old = set(third[12:])
    assert len(old & set(range(12))) == len(old & set(range(12, 24))) == 3
    assert old & set(range(12)) <= set(second[12:]), "what was thrown away does not come back"
    assert [len(e.dataset) for e in benchmark.test_stream] == [12, 12, 12]


def test_a_small_experience_is_repeated_beside_a_larger_buffer():
    own = numbered([10, 2])
    second = values(with_replay(tensor_benchmark(own, own), 5).train_stream[1])
    assert second[:5].count(10) + second[:5].count(11) == 5
    assert len(set(second[5:])) == 5


def test_which_samples_are_kept_depends_on_the_seed_alone():
    streams = [with_replay(scenario("split-digits", seed=0), 20, seed=s).train_stream for s in (1, 1, 2)]
    one, again, other = (bulk_view(stream[4]).index.tolist() for stream in streams)
    assert one == again != other


def test_permutations_stay_with_their_samples():
    plain = scenario("permuted-digits", experiences=2, seed=0)
    x, y = bulk_view(plain.train_stream[0]).tensors()
    stored, labels = bulk_view(with_replay(plain, 8).train_stream[1]).tensors()
    known = {(*sample.flatten().tolist(), int(label)) for sample, label in zip(x, y, strict=True)}
    size = len(plain.train_stream[1].dataset)
    replayed = {(*s.flatten().tolist(), int(label)) for s, label in zip(stored[size:], labels[size:], strict=True)}
    assert len(replayed) == 8
    assert replayed <= known


@pytest.mark.parametrize(
    ("stream", "samples", "message"),
    (
        ({"experiences": 1}, 10, "two training experiences"),
        ({"experiences": 5, "form": "task"}, 10, "task of each"),
        ({"experiences": 5}, 3, "at least one for each of 4"),
    ),
)
def test_what_cannot_be_replayed_is_refused(stream, samples, message):
    with pytest.raises(ValueError, match=message):
        with_replay(scenario("split-digits", **stream), samples)


EXPERIMENT = {
    "name": "replayed",
    "scenario": {"name": "split-digits", "experiences": 5},
    "network": {"name": "mlp", "inputs": 64, "hidden": [50], "classes": 10, "activation": "relu", "output": "identity"},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "max_epochs": 3,
    "batch_size": 32,
    "seeds": [0],
    "controls": {"replay": {"replay": 100}},
}


def test_a_control_with_replay_forgets_less_than_naive_training_and_its_buffer_is_counted(tmp_path):
    report = run_experiment(Experiment.from_dict(EXPERIMENT), tmp_path / "run", accelerator="cpu")
    naive, replay = report["naive"], report["replay"]
    assert replay["average_accuracy"]["mean"] > naive["average_accuracy"]["mean"] + 0.3
    benchmark = scenario("split-digits", experiences=5, seed=0)
    assert replay["cost"]["state_bytes"] == buffer_bytes(benchmark, 100) == 100 * (64 * 4 + 8)
    assert replay["cost"]["samples"] > naive["cost"]["samples"]


def test_naive_and_joint_training_store_nothing():
    experiment = Experiment.from_dict({**EXPERIMENT, "rule": "ewc", "replay": 50})
    assert experiment.for_learner("rule").replay == 50
    assert experiment.for_learner("naive").replay == experiment.for_learner("joint").replay == 0
    with pytest.raises(ValueError, match=r"overrides\.joint: replay"):
        Experiment.from_dict({**EXPERIMENT, "overrides": {"joint": {"replay": 50}}})
    with pytest.raises(ValueError, match="number of stored samples"):
        Experiment.from_dict({**EXPERIMENT, "replay": -1})


def test_a_rule_learns_beside_replay():
    experiment = Experiment.from_dict({**EXPERIMENT, "rule": {"name": "ewc", "strength": 1.0}, "replay": 50})
    result, module = run_seed(experiment, "rule", 0, accelerator="cpu")
    memory = sum(rule.state.bytes for rule in module.plasticity.rules)
    assert result.cost["state_bytes"] == memory + 50 * (64 * 4 + 8)

"""Sums that add up: merged, forgotten, decayed, over processes and over shards, they are those of one pass."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import Session, learn_shards
from lit_meta.rules import RecursiveReadout, StreamingLDA
from tests.rules import readout_in_processes
from tests.rules.test_recursive_readout import features_of, learn, network_of, samples

SETTINGS = (
    {},
    {"exact": True},
    {"exact": True, "block": 7},
    {"exact": True, "per_class": True},
    {"exact": True, "per_class": True, "block": 7},
    {"precision": "float32"},
    {"precision": "float32", "per_class": True, "block": 7},
)


def taught(x, y, network=None, *, batch=60, **options):
    """A rule that has learned samples, without a training loop."""
    rule, network = RecursiveReadout(ridge=1e-3, **options), network_of() if network is None else network
    rule.learn(network, zip(x.split(batch), y.split(batch), strict=True))
    return rule


def weights(rule, bias=True):
    network = network_of(bias=bias)
    rule.write(network)
    return torch.cat([p.detach().flatten() for p in network[2].parameters()])


def memory(rule):
    return copy.deepcopy(rule.state.state_dict())


def unchanged(rule, before):
    after = rule.state.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("bias", (True, False))
def test_merged_learners_are_one(options, bias):
    (x, y), network = samples(), network_of(bias=bias)
    one = taught(x, y, network, **options)
    first = taught(x[:100], y[:100], network, **options)
    second = taught(x[100:] + 0.0, y[100:], network, **options)
    before = memory(second)
    first.merge(second)
    assert unchanged(second, before)
    torch.testing.assert_close(weights(first, bias), weights(one, bias), atol=1e-5, rtol=1e-4)
    assert torch.equal(first.state.overall["class_counts"], one.state.overall["class_counts"])
    empty = RecursiveReadout(ridge=1e-3, **options)
    empty.merge(first)
    assert unchanged(empty, memory(first))


def test_learning_without_a_loop_is_that_of_a_session():
    (x, y), network = samples(), network_of()
    rule = RecursiveReadout(ridge=1e-3)
    learn(network, rule, zip(x.split(60), y.split(60), strict=True))
    assert unchanged(rule, memory(taught(x, y)))


def test_what_is_not_alike_is_not_merged():
    (x, y), rule = samples(), taught(*samples())
    before = memory(rule)
    lda = StreamingLDA()
    with pytest.raises(TypeError, match="can be merged with its like, got StreamingLDA"):
        rule.merge(lda)
    for other, message in (
        (rule, "merged with itself"),
        (taught(x, y, exact=True), "have the same exact"),
        (taught(x, y, network_of(seed=1)), "learned in copies of one network"),
        (taught(x, y, network_of(width=21)), "have the same features, got 20 and 21"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.merge(other)
    assert unchanged(rule, before)


def scatter_of(rule):
    """Second moments about the shift, by block."""
    return torch.cat([scatter.dense().flatten() for _, scatter in rule._sums.blocks()])


@pytest.mark.parametrize("options", SETTINGS)
def test_what_is_forgotten_has_never_been_seen_to_the_stated_digits(options):
    (x, y), network = samples(), network_of()
    rule = taught(x, y, network, **options)
    left = rule.forget(x[200:], y[200:], network=network)
    never = taught(x[:200], y[:200], network, **options)
    assert left.samples == 200
    assert left.digits > (13 if options.get("exact") else 4)
    torch.testing.assert_close(weights(rule), weights(never), atol=1e-5, rtol=1e-4)
    if options.get("exact"):  # Both about one constant: the mean of the samples left.
        never._sums._recenter(rule._sums.shift)
        expected = scatter_of(never)
        error = (scatter_of(rule) - expected).abs().max() / expected.abs().max()
        assert float(error) < 10.0**-left.digits


def test_forgetting_all_leaves_nothing_and_a_class_forgotten_is_never_predicted():
    (x, y), network = samples(), network_of()
    rule = taught(x, y, network)
    rule.forget(x[y == 2], y[y == 2], network=network)
    rule.write(network)
    assert 2 not in network(x).argmax(1)
    rule.forget(x[y != 2], y[y != 2], network=network)
    assert len(rule.state) == 0


def test_a_bound_rule_forgets_in_its_own_network_and_the_head_follows():
    (x, y), network = samples(), network_of()
    rule = RecursiveReadout(ridge=1e-3, exact=True)
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with session.experience(), session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    rule.forget(x[:150], y[:150])
    network.eval()(x)
    learned = torch.cat([p.detach().flatten() for p in network[2].parameters()])
    torch.testing.assert_close(learned, weights(taught(x[150:], y[150:], exact=True)), atol=1e-5, rtol=1e-4)


def test_what_was_never_seen_is_not_forgotten():
    (x, y), network = samples(), network_of()
    rule = taught(x[:100], y[:100], network)
    before, few = memory(rule), (y[:100] == 4).nonzero().flatten()
    elsewhere = torch.randn(len(few), 6, generator=torch.Generator().manual_seed(9)) * 5
    for given, labels, message in (
        (x, y, "samples of class 0 are to be forgotten, and"),
        (x[:30] * 9, y[:30], "never counted"),
        (elsewhere, y[few], "never counted"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.forget(given, labels, network=network)
        assert unchanged(rule, before)
    with pytest.raises(ValueError, match="not the one whose features were learned"):
        rule.forget(x[:2], y[:2], network=network_of(seed=1))
    with pytest.raises(ValueError, match="bound to no network"):
        rule.forget(x[:2], y[:2])
    with pytest.raises(ValueError, match="nothing to forget"):
        RecursiveReadout().forget(x[:2], y[:2], network=network)
    with pytest.raises(ValueError, match="weight depends on when it came"):
        taught(x, y, network, decay=0.9).forget(x[:2], y[:2], network=network)
    assert unchanged(rule, before)


@pytest.mark.parametrize("make", (RecursiveReadout, StreamingLDA))
@pytest.mark.parametrize("block", (None, 7))
def test_a_class_is_forgotten_without_its_samples(make, block):
    (x, y), network = samples(), network_of()
    rule, never = (make(exact=True, per_class=True, block=block) for _ in range(2))
    rule.learn(network, zip(x.split(60), y.split(60), strict=True))
    never.learn(network, [(x[y != 1], y[y != 1])])
    left = rule.forget_class(1)
    assert left.samples == int((y != 1).sum())
    assert left.digits > 13
    heads = []
    for one in (rule, never):
        one.write(network)
        heads.append(torch.cat([p.detach().flatten() for p in network[2].parameters()]))
    torch.testing.assert_close(*heads, atol=1e-5, rtol=1e-4)
    before = memory(rule)
    for label in (1, 7):
        with pytest.raises(ValueError, match=f"no sample of class {label} has been learned"):
            rule.forget_class(label)
    with pytest.raises(ValueError, match="per_class=True"):
        taught(x, y).forget_class(1)
    assert unchanged(rule, before)


@pytest.mark.parametrize("batch", (1, 17, 60))
def test_decay_weights_a_sample_by_its_age_however_samples_are_batched(batch):
    x, y = samples(60)
    network, decay = network_of(), 0.95
    rule = RecursiveReadout(ridge=1e-2, decay=decay, exact=True)
    rule.learn(network, zip(x.split(batch), y.split(batch), strict=True))
    rule.write(network)
    age = torch.arange(59, -1, -1).double()
    h, w = features_of(network, x), (decay**age).unsqueeze(1)
    mean = (w * h).sum(0) / w.sum()
    scatter = ((h - mean) * w).T @ (h - mean)
    ridge = 1e-2 * float(scatter.diagonal().mean())
    expected = torch.linalg.solve(scatter + ridge * torch.eye(20), ((h - mean) * w).T @ F.one_hot(y, 5).double())
    torch.testing.assert_close(network[2].weight.double(), expected.T, atol=1e-5, rtol=1e-4)


def test_shards_give_the_same_bits_for_any_number_of_jobs():
    (x, y), bits = samples(), []
    batches = list(zip(x.split(30), y.split(30), strict=True))
    shards = [batches[i::3] for i in range(3)]
    for jobs in (1, 2):
        network = network_of()
        rule = learn_shards(RecursiveReadout(ridge=1e-3), network, shards, jobs=jobs)
        bits.append((memory(rule), network[2].weight.detach().clone()))
    assert all(torch.equal(bits[0][0][key], bits[1][0][key]) for key in bits[0][0])
    assert torch.equal(bits[0][1], bits[1][1])
    one = network_of()
    taught(x, y).write(one)
    torch.testing.assert_close(bits[0][1], one[2].weight, atol=1e-5, rtol=1e-4)
    before = bits[1][0]
    with pytest.raises(ValueError, match="got the label 9"):
        learn_shards(rule, network, [*shards[:1], [(x[:1], torch.tensor([9]))]])
    with pytest.raises(ValueError, match="shards have no order"):
        learn_shards(RecursiveReadout(decay=0.9), network, shards)
    with pytest.raises(ValueError, match="no shards"):
        learn_shards(rule, network, [])
    assert unchanged(rule, before)


def test_shards_on_a_dask_cluster():
    distributed = pytest.importorskip("distributed")
    import joblib

    (x, y), network = samples(), network_of()
    batches = list(zip(x.split(30), y.split(30), strict=True))
    expected = memory(learn_shards(RecursiveReadout(), network, [batches[:5], batches[5:]]))
    cluster = distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, joblib.parallel_config(backend="dask"):
        rule = learn_shards(RecursiveReadout(), network, [batches[:5], batches[5:]], jobs=2)
    assert unchanged(rule, expected)


@pytest.mark.parametrize("rule", (RecursiveReadout, StreamingLDA))
def test_memory_written_as_square_matrices_is_read(rule):
    (x, y), network = samples(), network_of()
    new, old = rule(), rule()
    new.learn(network, [(x[:200], y[:200])])
    saved = {key: tensor for key, tensor in new.state.state_dict().items() if not key.startswith("digest")}
    (key,) = (key for key in saved if key.startswith("second_moment"))
    saved[key] = next(new._sums.blocks())[1].dense()
    assert saved[key].shape == (20, 20)
    old.state.load_state_dict(saved)
    heads = []
    for one in (new, old):
        one.learn(network, [(x[200:], y[200:])])
        one.write(network)
        heads.append(network[2].weight.detach().clone())
    assert torch.equal(*heads)


def test_classes_that_were_skipped_altogether_are_named():
    x, y = samples()
    batches = [(x[y == label], y[y == label]) for label in range(5)]
    with pytest.warns(UserWarning, match=r"after=100\) has counted no sample of class 0:"):
        learn(network_of(), RecursiveReadout(after=100), batches).end_experience()
    learn(network_of(), RecursiveReadout(after=100), zip(x.split(40), y.split(40), strict=True)).end_experience()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
def test_four_processes_learn_the_bits_of_one(tmp_path):
    """Two are in `test_situations`, through Lightning."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    done = subprocess.run(
        [*command, "-m", "tests.rules.readout_in_processes", str(tmp_path / "four.pt")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = readout_in_processes.learned(rank=0, processes=1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.load(tmp_path / "four.pt"), expected)


class Wrapped(nn.Module):
    """Its head runs at two positions."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(x.unflatten(1, (2, 3))).mean(1)


def test_a_head_with_several_inputs_is_refused_outside_a_loop_too():
    x, y = samples(4)
    with pytest.raises(ValueError, match=r"on an input of shape \(4, features\), got \(4, 2, 3\)"):
        RecursiveReadout().learn(Wrapped(), [(x, y)])

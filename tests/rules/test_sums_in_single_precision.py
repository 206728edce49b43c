"""Sums stored in float32: half the memory, and how far they are from those in float64."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.data import load_source
from lit_meta.networks import PatchNet
from lit_meta.rules import CriticalPeriod, RecursiveReadout, StreamingLDA
from tests.rules.test_recursive_readout import network_of, samples
from tests.rules.test_sums import taught

MOMENT = "second_moment/*0"


def of_size(stored, exact):
    """Error as a share of the matrix, in the Frobenius norm."""
    return float((stored.double() - exact).norm() / exact.norm())


def test_a_million_samples_lose_two_millionths_of_the_sums_and_no_label():
    """In steps of 100 samples, 10,000 roundings; docs/sums.md states these bounds."""
    width, batch, generator = 40, 100, torch.Generator().manual_seed(0)
    mixing, head = torch.randn(20, width, generator=generator), nn.Linear(width, 5)
    single, double = RecursiveReadout(ridge=1e-4, precision="float32"), RecursiveReadout(ridge=1e-4, exact=True)

    def draw(n):
        z = torch.randn(n, 20, generator=generator)
        return torch.relu(z @ mixing), z[:, :5].argmax(1)

    for _ in range(200):
        x, y = draw(5000)
        for rule in (single, double):
            rule.learn(head, zip(x.split(batch), y.split(batch), strict=True))
    assert int(single.state.overall["class_counts"].sum()) == 1_000_000
    stored, exact = (rule.state["second_moment"]["*0"] for rule in (single, double))
    assert stored.dtype == torch.float32
    assert exact.dtype == torch.float64
    error = of_size(stored, exact)
    assert 2.0**-25 < error < 2e-6, error
    assert error < single._sums.rounding
    x, _ = draw(20_000)
    solved = []
    for rule in (single, double):
        rule.write(head)
        solved.append((head.weight.detach().clone(), head(x).argmax(1)))
    (weight, labels), (expected, all_labels) = solved
    assert float((weight - expected).norm() / expected.norm()) < 1e-5
    assert torch.equal(labels, all_labels)


@pytest.mark.parametrize("make", (partial(RecursiveReadout, ridge=1e-3), partial(StreamingLDA, shrinkage=1e-3)))
@pytest.mark.parametrize("options", ({}, {"block": 7}, {"per_class": True}, {"decay": 0.99}))
def test_memory_is_half_and_the_solution_the_same(make, options):
    (x, y), learned = samples(), []
    for precision in ("float32", "float64"):
        rule, network = make(**options, precision=precision), network_of()
        rule.learn(network, zip(x.split(60), y.split(60), strict=True))
        rule.write(network)
        learned.append((rule.state["second_moment"], network[2].weight.detach().clone()))
    (halves, weight), (wholes, expected) = learned
    assert 2 * sum(t.nbytes for t in halves.values()) == sum(t.nbytes for t in wholes.values())
    torch.testing.assert_close(weight, expected, atol=1e-4, rtol=1e-3)


def test_what_is_forgotten_leaves_as_many_digits_as_it_says():
    (x, y), network = samples(), network_of()
    rule = taught(x, y, network, precision="float32")
    left = rule.forget(x[:100], y[:100], network=network)
    never = taught(x[100:], y[100:], network, exact=True)
    weights = []
    for learner in (rule, never):
        learner.write(network)
        weights.append(network[2].weight.detach().clone())
    assert 4 < left.digits < 7.3
    assert left.samples == len(x) - 100
    assert float((weights[0] - weights[1]).norm() / weights[1].norm()) < 1e-3
    with pytest.raises(ValueError, match=r"never counted|were counted"):
        rule.forget(x[:100] + 1.0, y[:100], network=network)


def test_cross_validation_stays_above_the_rounding_of_the_sums():
    """A ridge as small as what was rounded would fit the rounding errors."""
    (x, y), network = samples(), network_of()
    chosen = {}
    for precision in ("float32", "float64"):
        rule = RecursiveReadout(precision=precision)
        rule.learn(network, zip(x.split(3), y.split(3), strict=True))
        rule.write(network)
        chosen[precision] = network[2].weight.detach().clone()
    assert bool(chosen["float32"].isfinite().all())
    torch.testing.assert_close(chosen["float32"], chosen["float64"], atol=0.02, rtol=0.05)


def test_memories_of_another_precision_are_narrowed_and_never_widened():
    (x, y), network = samples(), network_of()
    double = taught(x, y, network)
    single = RecursiveReadout(ridge=1e-3, precision="float32")
    single.state.load_state_dict(double.state.state_dict())
    single.write(network)
    assert single.state["second_moment"]["*0"].dtype == torch.float32
    assert int(single.state.overall["roundings"]) == 1
    wide = RecursiveReadout(ridge=1e-3)
    wide.state.load_state_dict(single.state.state_dict())
    with pytest.raises(ValueError, match="summed in float32: build the rule with precision='float32'"):
        wide.write(network)
    with pytest.raises(ValueError, match="same precision, got 'float32' and 'float64'"):
        single.merge(double)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="exact=True sums products in float64"):
        RecursiveReadout(exact=True, precision="float32")
    with pytest.raises(ValueError, match="precision must be"):
        RecursiveReadout(precision="bfloat16")


@pytest.mark.skipif(
    not (Path(os.environ.get("LIT_META_DATA", "")) / "MNIST").is_dir(), reason="no MNIST under LIT_META_DATA"
)
def test_on_mnist_every_label_is_that_of_sums_in_double_precision():
    mnist = load_source("mnist")
    network = PatchNet((1, 28, 28), [20, 20], [5, 7], 10, parallel=True, padding=False, seed=0)
    rules = [CriticalPeriod(samples=500, threshold=1.0), RecursiveReadout(ridge=1e-3, precision="float32")]
    session, optimizer = Session(network, rules), torch.optim.SGD(network.head.parameters(), lr=0.1)
    double = RecursiveReadout(ridge=1e-3)
    order = mnist.train_y[:6000].argsort(stable=True)
    with session.experience():
        for x, y in zip(mnist.train_x[order].split(500), mnist.train_y[order].split(500), strict=True):
            with session.step(x, y, optimizer):
                F.cross_entropy(network(x), y).backward()
            double.learn(network, [(x, y)])
    x, labels = mnist.test_x[:4000], []
    for rule in (rules[1], double):
        rule.write(network)
        with torch.no_grad():
            labels.append(network.eval()(x).argmax(1))
    assert torch.equal(*labels)
    assert float((labels[0] == mnist.test_y[:4000]).float().mean()) > 0.95

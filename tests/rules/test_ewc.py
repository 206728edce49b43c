"""EWC against closed forms: importances, anchors and the pull they exert."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, Session


@pytest.fixture
def line():
    """A network of one weight layer, 2 -> 2, whose Fisher information can be written down."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.5, -0.2], [0.1, 0.3]]))
    return network


def softmax_fisher(weight, x, y):
    """E[g²] with g = (p - onehot(y)) xᵀ, sample by sample in float64."""
    total = torch.zeros(2, 2, dtype=torch.float64)
    for inputs, label in zip(x.double(), y, strict=True):
        p = torch.softmax(weight.double() @ inputs, 0)
        p[label] -= 1
        total += torch.outer(p, inputs) ** 2
    return total / len(x)


def one_experience(session, x, y, lr=0.0, steps=1):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=lr)
    with session.experience(list(zip(x.split(3), y.split(3), strict=True))):
        for _ in range(steps):
            with session.step(x, y, optimizer):
                F.cross_entropy(session.network(x), y).backward()


X = torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0], [-1.0, 0.3], [0.2, 0.2], [1.0, 1.0], [0.0, -2.0]])
Y = torch.tensor([0, 1, 0, 1, 1, 0, 0])


def test_importance_is_the_per_sample_fisher_whatever_the_batches(line):
    session = Session(line, EWC())
    one_experience(session, X, Y)
    expected = softmax_fisher(line[0].weight.detach(), X, Y)
    torch.testing.assert_close(
        session.rules[0].state["importance"]["0.weight"].double(), expected, rtol=1e-6, atol=1e-9
    )


def test_the_pull_is_strength_times_importance_times_distance(line):
    rule = EWC(strength=3.0)
    session = Session(line, rule)
    one_experience(session, X, Y)
    anchor = line[0].weight.detach().clone()
    with torch.no_grad():
        line[0].weight += 0.1
    session.begin_experience()
    line[0].weight.grad = torch.full((2, 2), 7.0)
    session.before_step()
    expected = 7.0 + 3.0 * rule.state["importance"]["0.weight"] * (line[0].weight.detach() - anchor)
    torch.testing.assert_close(line[0].weight.grad, expected)
    penalty = session.scalars()["ewc/penalty"]
    torch.testing.assert_close(penalty, 0.5 * 3.0 * (rule.state["importance"]["0.weight"] * 0.01).sum())


def test_offline_is_the_sum_of_one_penalty_for_each_experience(line):
    rule = EWC(strength=1.0)
    session = Session(line, rule)
    fishers, anchors = [], []
    for part in (slice(0, 3), slice(3, 5), slice(5, 7)):
        one_experience(session, X[part], Y[part], lr=0.5, steps=2)
        anchors.append(line[0].weight.detach().double().clone())
        fishers.append(softmax_fisher(line[0].weight.detach(), X[part], Y[part]))
    theta = line[0].weight.detach().double() + torch.tensor([[0.3, -0.1], [0.2, 0.5]], dtype=torch.float64)
    expected = sum(f * (theta - a) for f, a in zip(fishers, anchors, strict=True))
    merged = rule.state["importance"]["0.weight"].double() * (theta - rule.state["anchor"]["0.weight"].double())
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-6)


def test_online_decays_and_moves_its_anchor(line):
    rule = EWC(mode="online", decay=0.5)
    session = Session(line, rule)
    one_experience(session, X[:4], Y[:4], lr=0.5)
    first = softmax_fisher(line[0].weight.detach(), X[:4], Y[:4])
    one_experience(session, X[4:], Y[4:], lr=0.5)
    second = softmax_fisher(line[0].weight.detach(), X[4:], Y[4:])
    torch.testing.assert_close(
        rule.state["importance"]["0.weight"].double(), 0.5 * first + second, rtol=1e-4, atol=1e-7
    )
    assert torch.equal(rule.state["anchor"]["0.weight"], line[0].weight)


def test_strength_zero_is_plain_training_and_infinity_is_a_frozen_network(make_network, two_experiences):
    (x0, y0), (x1, y1) = two_experiences
    weights = {}
    for strength in (0.0, 1e5):
        network = make_network()
        rule = EWC(strength=strength, labels="exact")
        session = Session(network, rule)
        one_experience(session, x0, y0, lr=0.1, steps=5)
        after_first = torch.cat([p.detach().flatten() for p in network.parameters()])
        # A step small enough for the stiff penalty to be stable.
        one_experience(session, x1, y1, lr=1e-6 if strength else 0.1, steps=20)
        weights[strength] = torch.cat([p.detach().flatten() for p in network.parameters()]) - after_first
    assert weights[0.0].abs().max() > 0.01
    assert weights[1e5].abs().max() < 1e-4


def test_a_head_that_gains_rows_keeps_its_memory(line):
    rule = EWC()
    session = Session(line, rule)
    one_experience(session, X, Y)
    old = rule.state["importance"]["0.weight"].clone()
    wider = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        wider.weight[:2] = line[0].weight
    line[0] = wider
    one_experience(session, X, torch.full_like(Y, 2))
    grown = rule.state["importance"]["0.weight"]
    assert grown.shape == (3, 2)
    assert (grown[:2] >= old).all()
    assert (grown[2] > 0).all()


def test_a_head_that_loses_rows_is_refused(line):
    session = Session(line, EWC())
    one_experience(session, X, Y)
    line[0] = nn.Linear(2, 1, bias=False)
    with pytest.raises(ValueError, match="not lose them"):
        session.begin_experience()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"strength": -1.0}, "strength must be in"),
        ({"mode": "sometimes"}, "mode must be one of"),
        ({"decay": 0.5}, "no effect"),
        ({"labels": "soft"}, "labels must be one of"),
        ({"samples": 0}, "samples must be"),
        ({"strength": float("nan")}, "strength must be in"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        EWC(**arguments)


def test_so_many_samples_are_drawn_from_all_of_them(line):
    subsets = set()
    for seed in range(8):
        rule = EWC(samples=4, seed=seed)
        one_experience(Session(line, rule), X, Y)
        importance = rule.state["importance"]["0.weight"].double()
        matches = [
            rows
            for rows in combinations(range(7), 4)
            if torch.allclose(
                importance, softmax_fisher(line[0].weight.detach(), X[list(rows)], Y[list(rows)]), rtol=1e-5
            )
        ]
        assert len(matches) == 1
        subsets |= set(matches)
    assert len(subsets) > 3
    assert set().union(*subsets) == set(range(7))


def test_of_orthogonal_inputs_a_linear_gaussian_model_learned_in_sequence_is_the_joint_one():
    # Each input feature is on alone, so the Fisher information is diagonal and the quadratic penalty is exact: with
    # strength 1 and equally many samples, learning A and then B must end where learning both at once ends.
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    targets = [torch.tensor([[1.0], [2.0], [0.5], [-1.0]], dtype=torch.float64)]
    targets.append(torch.tensor([[-2.0], [0.3], [1.0], [4.0]], dtype=torch.float64))
    network = nn.Sequential(nn.Linear(2, 1, bias=False).double())
    rule = EWC(strength=1.0, loss="mse", labels="exact")
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for y in targets:
        with session.experience([(x, y)]):
            for _ in range(400):
                with session.step(x, None, optimizer):
                    (0.5 * (network(x) - y).square().mean()).backward()
    both = torch.linalg.lstsq(torch.cat([x, x]), torch.cat(targets)).solution.T
    torch.testing.assert_close(network[0].weight.detach(), both, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(rule.state["importance"]["0.weight"], 2 * x.square().mean(0, keepdim=True))


def test_stiffness_tells_where_gradient_descent_becomes_unstable(line):
    for factor, stable in ((0.95, True), (1.05, False)):
        network = nn.Sequential(nn.Linear(2, 2, bias=False))
        network.load_state_dict(line.state_dict())
        rule = EWC(strength=10.0)
        session = Session(network, rule)
        one_experience(session, X, Y)
        stiffness = session.scalars()["ewc/stiffness"].item()
        assert stiffness == pytest.approx(10.0 * rule.state["importance"]["0.weight"].max().item())
        optimizer = torch.optim.SGD(network.parameters(), lr=factor * 2 / stiffness)
        with torch.no_grad():
            network[0].weight += 0.1
        session.begin_experience()
        for _ in range(150):
            network[0].weight.grad = torch.zeros(2, 2)  # A task that asks for nothing leaves only the pull.
            session.before_step(optimizer)
            optimizer.step()
        distance = (network[0].weight - line[0].weight).abs().max().item()
        assert distance < 1e-2 if stable else distance > 1e3


def test_what_a_frozen_parameter_remembers_pulls_again_when_it_thaws(line):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    rule = EWC(strength=2.0)
    session = Session(network, rule)
    one_experience(session, X, Y, lr=0.1)
    held = rule.state["importance"]["0.weight"].clone()
    network[0].requires_grad_(False)
    one_experience(session, X, 1 - Y, lr=0.1)
    network[0].requires_grad_(True)
    with torch.no_grad():
        network[0].weight += 0.1
    session.begin_experience()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    session.before_step()
    torch.testing.assert_close(network[0].weight.grad, 2.0 * held * 0.1)


@pytest.mark.parametrize(("labels", "needed"), (("true", True), ("sample", False), ("exact", False)))
def test_labels_are_needed_only_where_they_are_read(line, labels, needed):
    rule = EWC(labels=labels)
    assert rule.needs_labels == needed
    session = Session(line, rule)
    optimizer = torch.optim.SGD(line.parameters(), lr=0.1)
    session.begin_experience()
    if needed:
        with pytest.raises(ValueError, match="needs labels"):
            session.before_forward(X, None)
        return
    with session.step(X, None, optimizer):
        line(X).square().mean().backward()
    session.end_experience([(X, None)])
    assert (rule.state["importance"]["0.weight"] > 0).all()


def test_a_hyperparameter_that_is_no_number_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"strength must be in \[0.0, inf\], got 'much'"):
        EWC(strength="much")

"""The cascade of Benna and Fusi against its equations and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta import BennaFusi, Session


def chain_of(rule):
    """A network of two parameters, and a function that pushes them by a step of learning."""
    network = nn.Sequential(nn.Linear(2, 1, bias=False).double())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.4, -0.3]], dtype=torch.float64))
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=1.0)
    session.begin_experience()

    def push(change):
        network[0].weight.grad = -torch.tensor([change], dtype=torch.float64)
        session.before_step(optimizer)
        optimizer.step()
        session.after_step(optimizer)
        return variables(rule, network)

    return network, session, push


def variables(rule, network):
    rest = [rule.state[f"variable-{k}"]["0.weight"].numpy()[0].copy() for k in range(2, rule.variables + 1)]
    return np.stack([network[0].weight.detach().numpy()[0].copy(), *rest])


@pytest.mark.parametrize("leak", (False, True))
def test_three_steps_by_hand(leak):
    rule = BennaFusi(variables=3, rate=0.2, leak=leak)
    _, _, push = chain_of(rule)
    u = np.tile([0.4, -0.3], (3, 1))
    g, capacity = [0.2, 0.1, 0.05], [1.0, 2.0, 4.0]
    for change in ([1.0, 0.5], [0.0, -1.0], [0.3, 0.0]):
        u[0] += change
        u = np.stack(
            [
                u[0] + g[0] * (u[1] - u[0]) / capacity[0],
                u[1] + (g[0] * (u[0] - u[1]) + g[1] * (u[2] - u[1])) / capacity[1],
                u[2] + (g[1] * (u[1] - u[2]) - (g[2] * u[2] if leak else 0.0)) / capacity[2],
            ]
        )
        np.testing.assert_allclose(push(change), u, rtol=1e-12)


def test_flows_and_areas_given_one_by_one():
    flows, areas = [0.5, 0.3, 0.2], [1.0, 3.0, 5.0]
    _, _, push = chain_of(BennaFusi(variables=3, leak=True, flows=flows, areas=areas))
    u = np.tile([0.4, -0.3], (3, 1))
    for change in ([1.0, 0.5], [0.0, -1.0]):
        u[0] += change
        u = np.stack(
            [
                u[0] + flows[0] * (u[1] - u[0]),
                u[1] + (flows[0] * (u[0] - u[1]) + flows[1] * (u[2] - u[1])) / 3.0,
                u[2] + (flows[1] * (u[1] - u[2]) - flows[2] * u[2]) / 5.0,
            ]
        )
        np.testing.assert_allclose(push(change), u, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"flows": [0.1, 0.1]}, "must be 3 numbers"),
        ({"flows": [0.1, 0.1, 0.1], "leak": True}, "must be 4 numbers"),
        ({"flows": [0.1, 0.0, 0.1]}, "above 0"),
        ({"flows": [0.1, 0.1, 0.1], "rate": 0.5}, "no effect beside flows"),
        ({"areas": [1, 2, 4]}, "must be 4 numbers"),
        ({"areas": [0.5, 1, 2, 4]}, "at least 1"),
    ),
)
def test_flows_and_areas_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        BennaFusi(**arguments)


def test_the_flows_conserve_what_is_in_the_beakers():
    rule = BennaFusi(variables=5, rate=0.7)
    _, _, push = chain_of(rule)
    capacity = 2.0 ** np.arange(5)
    start = (capacity[:, None] * push([1.0, -2.0])).sum(0)
    for _ in range(50):
        end = (capacity[:, None] * push([0.0, 0.0])).sum(0)
    np.testing.assert_allclose(end, start, rtol=1e-12)


def test_left_alone_it_relaxes_to_the_weighted_mean_and_never_oscillates():
    rule = BennaFusi(variables=3, rate=1.0)  # The largest rate that is allowed.
    _, _, push = chain_of(rule)
    first = push([7.0, 0.0])
    mean = (np.array([1.0, 2.0, 4.0])[:, None] * first).sum(0) / 7.0
    previous = first[0, 0]
    for _ in range(300):
        now = push([0.0, 0.0])
        assert now.max() <= first.max() + 1e-12
        previous = now[0, 0]
    assert previous == pytest.approx(mean[0], rel=1e-6)


def test_in_equilibrium_nothing_moves():
    rule = BennaFusi()
    network, _, push = chain_of(rule)
    before = network[0].weight.detach().clone()
    push([0.0, 0.0])
    assert torch.equal(network[0].weight, before)


def test_memories_fade_more_slowly_than_exponentially():
    rule = BennaFusi(variables=8, rate=0.5)
    _, _, push = chain_of(rule)
    push([1.0, 0.0])
    trace = np.array([push([0.0, 0.0])[0, 0] - 0.4 for _ in range(2000)])
    # Benna & Fusi: about 1/√t between the fastest and the slowest time constant, so t → 16 t costs a factor of about 4.
    assert trace[1599] / trace[99] == pytest.approx(0.25, rel=0.25)


def test_new_rows_start_in_equilibrium():
    rule = BennaFusi(variables=3, rate=0.5)
    network, session, push = chain_of(rule)
    old = push([1.0, 1.0])
    wider = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        wider.weight[:1] = network[0].weight
    network[0] = wider
    session.close()
    session.begin_experience()
    for k in (2, 3):
        held = rule.state[f"variable-{k}"]["0.weight"]
        np.testing.assert_array_equal(held[0].numpy(), old[k - 1])
        assert torch.equal(held[1], wider.weight[1].detach())


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"variables": 1}, "variables must be"),
        ({"variables": 2.5}, "variables must be"),
        ({"rate": 0.0}, "rate must be in"),
        ({"rate": 1.5}, "rate must be in"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        BennaFusi(**arguments)

"""NACA on compiled networks: equal to the plain ones where the rule came first, refused where it cannot see the layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import NACA, Session

# Of the compiler itself, where its graphs end and begin.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

X = torch.rand(12, 5, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 4


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


def compiled(network):
    # The whole of tracing and graph capture; only the last stage, the making of machine code, is left out.
    return torch.compile(network, backend="aot_eager")


def train(session, forward, experiences=2):
    for _ in range(experiences):
        optimizer = torch.optim.SGD(session.network.parameters(), lr=0.1)
        with session.experience([(X, Y)]):
            for x, y in zip(X.split(6), Y.split(6), strict=True):
                with session.step(x, y, optimizer):
                    F.cross_entropy(forward(x), y).backward()
    return torch.cat([p.detach().flatten() for p in session.network.parameters()])


def test_attached_first_and_compiled_then_is_the_plain_result():
    network = make()
    reference = copy.deepcopy(network)
    plain = train(Session(reference, NACA()), reference)
    session = Session(network, NACA())
    torch.testing.assert_close(train(session, compiled(network)), plain)


def test_a_compiled_network_that_was_not_used_yet_is_the_plain_result():
    network = make()
    reference = copy.deepcopy(network)
    plain = train(Session(reference, NACA()), reference)
    wrapped = compiled(network)
    torch.testing.assert_close(train(Session(wrapped, NACA()), wrapped), plain)


def test_compiled_and_used_before_the_rule_came_is_equal_or_refused():
    network = make()
    wrapped = compiled(network)
    for _ in range(2):
        F.cross_entropy(wrapped(X[:6]), Y[:6]).backward()
    network.zero_grad()
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(ValueError, match="attach the rule first and compile then"):
        train(Session(network, NACA()), wrapped)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_a_compiled_part_that_hides_its_layers_is_refused_by_name():
    network = make()
    front = compiled(network[:5])
    front(X[:6]).sum().backward()
    whole = nn.Sequential(front, network[5])
    before = [p.detach().clone() for p in whole.parameters()]
    with pytest.raises(ValueError, match=r"'0._orig_mod.0', '0._orig_mod.2' were not seen"):
        train(Session(whole, NACA()), whole)
    assert all(torch.equal(p, b) for p, b in zip(whole.parameters(), before, strict=True))

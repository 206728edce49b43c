"""Weights that are computed from others, or shared, are right or refused before training, for every rule."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from lit_meta import NACA, Session
from lit_meta.rules import RULES, BinaryMetaplasticity, CriticalPeriod, RecursiveReadout, StreamingLDA
from tests.rules.test_contract import from_config


def deprecated(layer):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return old_weight_norm(layer)


COMPUTED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": deprecated,
    "old spectral_norm": old_spectral_norm,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", amount=0.5),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", amount=0.5),
}
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


READOUTS = ("recursive-readout", "streaming-lda")
SETTLE = ("critical-period",)
REFUSE = ("binary-metaplasticity", "continual-backprop")


def network_with(kind, *, head):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    COMPUTED[kind](network[2 if head else 0])
    return network


def learn(network, rule, steps=3):
    session = Session(network, rule)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    with session.experience([(X, Y)]):
        for _ in range(steps):
            with session.step(X, Y, optimizer):
                F.cross_entropy(network(X), Y).backward()


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize(
    ("rule", "head"),
    (
        (RecursiveReadout, True),
        (StreamingLDA, True),
        (CriticalPeriod, False),
        (BinaryMetaplasticity, True),
        (BinaryMetaplasticity, False),
    ),
)
def test_a_rule_that_needs_the_weights_themselves_refuses_computed_ones_before_training(rule, head, kind):
    network = network_with(kind, head=head)
    before = copy.deepcopy(network.state_dict())
    part = "bias" if kind == "pruned bias" else "weight"
    message = rf"{rule.__name__} works on the {part} of layer '{2 if head else 0}' itself, but it is computed"
    with pytest.raises(ValueError, match=message):
        Session(network, rule()).begin_experience()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize(("rule", "head"), ((RecursiveReadout, False), (CriticalPeriod, True)))
def test_layers_that_a_rule_does_not_touch_may_be_computed(rule, head, kind):
    learn(network_with(kind, head=head), rule())


@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("head", (True, False))
@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_learns_computed_weights_or_refuses_them(name, head, kind):
    """No rule goes on without a word and leaves the layer as it was."""
    network = network_with(kind, head=head)
    own = {n: p.detach().clone() for n, p in network.named_parameters() if n.startswith("2." if head else "0.")}
    refused = name in REFUSE or (name in READOUTS and head) or (name in SETTLE and not head)
    if refused:
        with pytest.raises(ValueError, match="itself, but it is computed from other parameters"):
            learn(network, from_config(name))
        return
    learn(network, from_config(name))
    learns = head or name not in READOUTS
    assert any(not torch.equal(network.get_parameter(n), value) for n, value in own.items()) == learns


@pytest.mark.parametrize("wrap", (parametrizations.weight_norm, parametrizations.spectral_norm))
def test_naca_learns_the_parameters_behind_a_computed_weight(wrap):
    """The same local error, taken on to them by the chain rule within the layer."""
    torch.manual_seed(0)
    network = nn.Sequential(wrap(nn.Linear(6, 5)), nn.Sigmoid(), nn.Linear(5, 3)).double().eval()
    x = X.double()
    rule = NACA(reduction="sum")
    session = Session(network, rule)
    session.begin_experience()
    session.before_forward(x, Y)
    F.cross_entropy(network(x), Y).backward()
    session.after_backward()
    session.before_step()
    block = copy.deepcopy(network[:2])
    output = block(x)
    error = rule._tables["0"][1][Y]
    parameters = dict(block.named_parameters())
    expected = torch.autograd.grad(output, list(parameters.values()), error)
    for name, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(network.get_parameter(name).grad, gradient, rtol=1e-9, atol=1e-12)
        assert gradient.abs().sum() > 0


class LanguageModel(nn.Module):
    """An embedding whose matrix is also the head's, as language models have."""

    def __init__(self, *, by_data=False):
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.head.weight = nn.Parameter(self.embedding.weight.data) if by_data else self.embedding.weight

    def forward(self, x):
        return self.head(torch.tanh(self.body(self.embedding(x).mean(1))))


@pytest.mark.parametrize("by_data", (False, True))
def test_a_readout_does_not_overwrite_the_embedding_that_its_head_is_tied_to(by_data):
    torch.manual_seed(0)
    network = LanguageModel(by_data=by_data)
    before = network.embedding.weight.detach().clone()
    with pytest.raises(ValueError, match="sets the weight of layer 'head', which is that of module 'embedding' too"):
        Session(network, RecursiveReadout()).begin_experience()
    network.head.weight = nn.Parameter(network.head.weight.detach().clone())
    session = Session(network, RecursiveReadout())
    x = torch.randint(0, 4, (8, 5), generator=torch.Generator().manual_seed(0))
    with session.experience(), session.step(x, torch.arange(8) % 4, torch.optim.SGD(network.parameters(), lr=0.1)):
        network(x).sum().backward()
    assert torch.equal(network.embedding.weight, before)
    assert not torch.equal(network.head.weight, before)


def test_a_critical_period_refuses_layers_that_share_a_weight():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    network[1].weight = network[0].weight
    with pytest.raises(ValueError, match="CriticalPeriod sets the weight of layer '0', which is that of module '1'"):
        Session(network, CriticalPeriod()).begin_experience()

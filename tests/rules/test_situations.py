"""What every rule must survive, or refuse with a clear error: networks and hosts as people have them.

A rule that cannot work in a situation stands in `REFUSED` (or says so in `Rule.limits`), and then it must raise; nothing is
skipped.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import Metaplasticity, Session
from lit_meta.rules import (
    HLOP,
    NACA,
    OWM,
    RULES,
    ContinualBackprop,
    CriticalPeriod,
    RecursiveReadout,
    Rule,
    StreamingLDA,
)
from tests.rules import drivers
from tests.rules.test_contract import from_config

SGD = torch.optim.SGD
# What these remember or learn is what each batch brought, so that other batches leave other weights.
BY_BATCH = (OWM, HLOP, CriticalPeriod)
# Rules that refuse a network or a loop, by situation; of a situation that is not named here none does.
REFUSED: dict[str, tuple[type[Rule], ...]] = {
    "growth": (NACA,),  # NI is drawn for a number of classes.
    "shared": (
        NACA,
        CriticalPeriod,
        ContinualBackprop,
    ),  # Every layer has one local error, or learns from its own input.
    "heads": (
        RecursiveReadout,
        StreamingLDA,
        ContinualBackprop,
    ),  # One head is learned, and runs in every forward pass.
}


def refusal(rule: Rule, situation: str):
    """Expects an error where the rule refuses the situation, and none where it does not."""
    if isinstance(rule, REFUSED.get(situation, ())):
        return pytest.raises((ValueError, TypeError, RuntimeError))
    return contextlib.nullcontext()


def learn(session, x, y, *, optimizers=None, batch=9, loss=F.cross_entropy):
    """One experience, one epoch."""
    optimizers = optimizers or [SGD([p for p in session.network.parameters() if p.requires_grad], lr=0.05)]
    with session.experience(list(zip(x.split(batch), y.split(batch), strict=True))):
        for inputs, targets in zip(x.split(batch), y.split(batch), strict=True):
            for optimizer in optimizers:
                optimizer.zero_grad()
            session.before_forward(inputs, targets)
            loss(session.network(inputs), targets).backward()
            session.after_backward()
            for optimizer in optimizers:
                session.before_step(optimizer)
                optimizer.step()
                session.after_step(optimizer)


def changed(network, before):
    return {name for name, p in network.named_parameters() if not torch.equal(p.detach(), before[name])}


def plastic(rule, names, head, *, later=False):
    """Those of the names that the rule lets learn; ``later``: after the first experience."""
    head_only = rule.head_only or (later and isinstance(rule, CriticalPeriod))
    return {name for name in names if not head_only or name.startswith(head)}


def values(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.fixture(params=sorted(RULES))
def rule(request) -> Rule:
    return from_config(request.param)


def test_float64_between_experiences(rule, make_network, two_experiences):
    network = make_network()
    session = Session(network, rule)
    (x0, y0), (x1, y1) = two_experiences
    learn(session, x0, y0)
    network.double()
    learn(session, x1.double(), y1)
    for key, tensor in rule.state.state_dict().items():
        name = key.partition("/")[2]
        if tensor.is_floating_point() and name in dict(network.named_parameters()):
            assert tensor.dtype == torch.float64, key
    assert all(p.dtype == torch.float64 and p.isfinite().all() for p in network.parameters())


def test_bfloat16_parameters(rule, make_network, two_experiences):
    network = make_network().bfloat16()
    before = values(network)
    session = Session(network, rule)
    with refusal(rule, "half"):
        for x, y in two_experiences:
            learn(session, x.bfloat16(), y)
        assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in network.parameters())
        assert changed(network, before) == plastic(rule, before, "4.")


def test_a_plain_head_that_is_widened(rule, two_experiences):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 2))
    session = Session(network, rule)
    (x0, y0), (x1, y1) = two_experiences
    learn(session, x0, y0)
    narrow = network[2]
    network[2] = nn.Linear(12, 4)
    with torch.no_grad():
        network[2].weight[:2], network[2].bias[:2] = narrow.weight, narrow.bias
    before = values(network)
    with refusal(rule, "growth"):
        learn(session, x1, y1)
        after = values(network)
        assert (after["2.weight"][2:] != before["2.weight"][2:]).any()
        for key, tensor in rule.state.state_dict().items():
            assert not tensor.is_floating_point() or tensor.isfinite().all(), key


def test_the_incremental_classifier_of_avalanche(rule, two_experiences):
    from avalanche.models import IncrementalClassifier

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 12)
            self.classifier = IncrementalClassifier(12, initial_out_features=2, masking=False)

        def forward(self, x):
            return self.classifier(torch.tanh(self.body(x)))

    torch.manual_seed(0)
    network = Network()
    with refusal(rule, "growth"):
        drivers.avalanche(network, rule, two_experiences)
        assert network.classifier.classifier.weight.shape == (4, 12)
        assert all(p.isfinite().all() for p in network.parameters())


class MultiHead(nn.Module):
    """A body and one head for each experience; ``active`` says which is used."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 12)
        self.heads = nn.ModuleList(nn.Linear(12, 2) for _ in range(2))
        self.active = 0

    def forward(self, x):
        return self.heads[self.active](torch.tanh(self.body(x)))


def test_a_head_that_is_not_used_is_left_alone(rule, two_experiences):
    torch.manual_seed(0)
    network = MultiHead()
    session = Session(network, rule)
    with refusal(rule, "heads"):
        for active, (x, y) in enumerate(two_experiences):
            network.active = active
            before = values(network)
            learn(session, x, y - 2 * active)
            moved = changed(network, before)
            assert {f"heads.{active}.weight", f"heads.{active}.bias"} <= moved
            assert not {f"heads.{1 - active}.weight", f"heads.{1 - active}.bias"} & moved


def test_parameters_frozen_and_thawed_between_experiences(rule, make_network, two_experiences):
    network = make_network()
    session = Session(network, rule)
    (x0, y0), (x1, y1) = two_experiences
    learn(session, x0, y0)
    within = ("start/", "path/")  # What SI holds of the present experience only.
    memory = rule.state.state_dict()
    held = {k: t.clone() for k, t in memory.items() if k.endswith("/0.weight") and not k.startswith(within)}
    network[0].requires_grad_(False)
    before = values(network)
    learn(session, x1, y1)
    assert not {"0.weight", "0.bias"} & changed(network, before)
    for key, tensor in held.items():  # What the frozen layer remembers is kept for when it learns again.
        assert torch.equal(rule.state.state_dict()[key], tensor), key
    network[0].requires_grad_(True)
    before = values(network)
    learn(session, x0, y0)
    assert plastic(rule, {"0.weight", "0.bias"}, "4.", later=True) <= changed(network, before)


@pytest.mark.filterwarnings("ignore:.*were replaced by new parameters")  # Layers behind the new one have another name.
def test_layers_added_between_experiences(rule, make_network, two_experiences):
    network = make_network()
    session = Session(network, rule)
    (x0, y0), (x1, y1) = two_experiences
    learn(session, x0, y0)
    network.insert(4, nn.Linear(10, 10))
    before = values(network)
    with refusal(rule, "layers"):
        learn(session, x1, y1)
        assert plastic(rule, {"4.weight", "5.weight"}, "5.", later=True) <= changed(network, before)
        learn(session, x0, y0)


class Tied(nn.Module):
    """The same matrix in two layers, one of them its transpose: a parameter that is shared."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


def test_shared_parameters(rule, two_experiences):
    torch.manual_seed(0)
    network = Tied()
    session = Session(network, rule)
    with refusal(rule, "shared"):
        for later, (x, y) in enumerate(two_experiences):
            before = values(network)
            learn(session, x, y)
            expected = plastic(rule, {"one.weight", "head.weight"}, "head.", later=bool(later))
            if later and getattr(rule, "rest", None) == "freeze":
                expected.discard("one.weight")  # It cannot be projected, and is kept after the first experience.
            assert expected <= changed(network, before)
        assert network.one.weight is network.two.weight
        quantities = [key for key in rule.state.state_dict() if key.endswith("two.weight")]
        assert quantities == []  # One memory for one synapse.


def test_several_optimizers_and_parameter_groups(rule, make_network, two_experiences):
    found = []
    for split in (False, True):
        network, one = make_network(), rule.clone()
        session = Session(network, one)
        for x, y in two_experiences:
            if split:
                optimizers = [
                    SGD([{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.1}], lr=0.05),
                    SGD(network[4].parameters(), lr=0.05),
                ]
            else:
                groups = [{"params": network[i].parameters(), "lr": lr} for i, lr in ((0, 0.05), (2, 0.1), (4, 0.05))]
                optimizers = [SGD(groups, lr=0.05)]
            learn(session, x, y, optimizers=optimizers)
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    if type(rule).__name__ in (
        "UPGD",
        "ContinualBackprop",
    ):  # They act on an optimizer's parameters, so it may differ, as documented.
        assert all(weights.isfinite().all() for weights in found)
    else:
        torch.testing.assert_close(*found)


def fit(rule, network, data, **options):
    for x, y in data:
        batch = options.pop("batch", None) or drivers.BATCH
        drivers.trainer(callbacks=[Metaplasticity(rule, network="body")], max_epochs=1, **options).fit(
            drivers.UserModule(network), DataLoader(TensorDataset(x, y), batch_size=batch)
        )
        options["batch"] = batch
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_accumulated_gradients_are_those_of_the_big_batch(rule, make_network, two_experiences):
    with refusal(rule, "accumulation"):
        big = fit(rule.clone(), make_network(), two_experiences, batch=18)
        accumulated = fit(rule.clone(), make_network(), two_experiences, batch=9, accumulate_grad_batches=2)
        if isinstance(rule, BY_BATCH):
            assert accumulated.isfinite().all()
        elif rule.makes_update:
            # Every pass draws weights of its own, so the numbers differ by design; `test_bgd` holds them to the equations.
            assert accumulated.isfinite().all()
            assert not torch.equal(accumulated, big)
        else:
            torch.testing.assert_close(accumulated, big, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast(rule, make_network, two_experiences):
    network = make_network()
    before = values(network)
    found = fit(rule.clone(), network, two_experiences, precision="bf16-mixed")
    whole = fit(rule.clone(), make_network(), two_experiences)
    assert found.dtype == torch.float32
    assert changed(network, before) == plastic(rule, before, "4.")
    assert not torch.equal(found, whole)
    if isinstance(rule, CriticalPeriod):  # Where rounding decides which unit wins, the unit goes elsewhere altogether.
        assert found.isfinite().all()
        return
    start = torch.cat([p.flatten() for p in before.values()])
    assert (found - whole).norm() < 0.25 * (whole - start).norm()


@pytest.mark.parametrize("name", [name for name in RULES if "fp16" in RULES[name].limits])
def test_a_rule_that_reads_gradients_before_they_are_unscaled_refuses_scaled_losses(name, make_network):
    callback = Metaplasticity(from_config(name), network="body")
    trainer = drivers.trainer(callbacks=[callback])
    trainer.strategy.precision_plugin.precision = "16-mixed"  # A Trainer that would scale losses needs a GPU.
    with pytest.raises(ValueError, match="does not work with precision='16-mixed'"):
        callback.setup(trainer, drivers.UserModule(make_network()), "fit")

"""Every rule: after a step that fails, weights, memory, generators and counters are as before it, and learning goes on as if it
had never been tried."""

from __future__ import annotations

import copy
import os
import pickle
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import DivergedError, Session
from lit_meta.core.step_undo import Mark, interrupts_deferred
from lit_meta.rules import MAS, RULES, Rule, XdG
from tests.rules import drivers
from tests.rules.test_contract import from_config


class Broken(RuntimeError):
    """What goes wrong in these tests."""


class Network(nn.Module):
    """Batch normalisation, whose statistics move, and dropout, which draws; a forward pass that can fail."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(8, 12), nn.BatchNorm1d(12)
        self.dropout, self.second, self.head = nn.Dropout(0.2), nn.Linear(12, 10), nn.Linear(10, 4)
        self.fails = False

    def forward(self, x):
        x = self.dropout(torch.tanh(self.norm(self.first(x))))
        x = torch.tanh(self.second(x))
        if self.fails:
            raise Broken("in the forward pass")
        return self.head(x)


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        super().step(closure)
        if self.fails:
            raise Broken("in the optimizer")


class Last(Rule):
    """The last of several rules, which fails in one event."""

    stages_memory = True

    def __init__(self):
        super().__init__()
        self.fails = ""

    def _event(self, name):
        if self.fails == name:
            raise Broken(f"in {name}")

    def before_forward(self, synapses, inputs, targets):
        self._event("before_forward")

    def after_backward(self, synapses):
        self._event("after_backward")

    def end_experience(self, synapses, experience):
        self._event("end_experience")


class LastOfSteps(Last):
    def gradient(self, synapses):
        self._event("gradient")

    def update(self, synapses, before):
        self._event("update")


def snapshot(session):
    """Everything that a step may change."""
    rules = [
        {k: copy.copy(v) for k, v in vars(r).items() if isinstance(v, (int, float, str, bool, set))}
        for r in session.rules
    ]
    counters = session.steps, session.experiences, torch.get_rng_state()
    return copy.deepcopy((session.state_dict(), session.network.state_dict(), rules, counters))


def assert_same(one, two, what="", place="") -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys(), (what, place, one.keys() ^ two.keys())
        for key in one:
            assert_same(one[key], two[key], what, f"{place}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), (what, place)
        for number, (first, second) in enumerate(zip(one, two, strict=True)):
            assert_same(first, second, what, f"{place}/{number}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, (what, place)
        assert torch.equal(one, two), (what, place)
    else:
        assert one == two, (what, place)


def begun(name, *more):
    """A session in its second experience, so that the rule has a memory."""
    network = Network()
    rules = [from_config(name), *more]
    session = Session(network, rules)
    optimizer = Failing(network.parameters(), lr=0.05)  # Momentum would move in an optimizer's step that fails.
    for x, y in data():
        session.begin_experience()
        for inputs, targets in zip(x.split(9), y.split(9), strict=True):
            step(session, optimizer, inputs, targets)
        if session.experiences == 0:
            session.end_experience([(x, y)])
    return session, optimizer


def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 18, 8, generator=generator)
    return [(x[0], torch.arange(18) % 2), (x[1], 2 + torch.arange(18) % 2)]


def step(session, optimizer, x, y, loss=F.cross_entropy):
    with session.step(x, y, optimizer):
        loss(session.network(x), y).backward()


def broken_loss(outputs, targets):
    raise Broken("in the loss")


def interrupted(outputs, targets):
    raise KeyboardInterrupt


def endless(outputs, targets):
    return F.cross_entropy(outputs, targets) * float("nan")


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        raise Broken("in the backward pass")


def broken_backward(outputs, targets):
    return F.cross_entropy(_Backward.apply(outputs), targets)


LOSSES = {
    "loss": (broken_loss, Broken),
    "interrupt": (interrupted, KeyboardInterrupt),
    "nan": (endless, DivergedError),
    "backward": (broken_backward, Broken),
}
EVENTS = ("before_forward", "after_backward", "gradient", "update")


@pytest.mark.parametrize("name", RULES)
def test_a_step_that_fails_leaves_nothing_behind(name):
    session, optimizer = begun(name)
    x, y = data()[1]
    x, y = x[:9], y[:9]
    before = snapshot(session)
    for loss, error in LOSSES.values():
        with pytest.raises(error):
            step(session, optimizer, x, y, loss)
        assert_same(before, snapshot(session), loss.__name__)
    session.network.fails = True
    with pytest.raises(Broken):
        step(session, optimizer, x, y)
    session.network.fails = False
    assert_same(before, snapshot(session), "forward")
    bad = {"NaN": x * float("nan"), "overflow float32": x.sign() * 1e30, "batch is empty": x[:0]}
    for message, inputs in bad.items():
        with pytest.raises(ValueError, match=message):
            step(session, optimizer, inputs, y[: len(inputs)])
        assert_same(before, snapshot(session), message)
    if "update" in session.answers:  # The session has the weights before the optimizer's step.
        optimizer.fails = True
        with pytest.raises(Broken):
            step(session, optimizer, x, y)
        optimizer.fails = False
        assert_same(before, snapshot(session), "optimizer")

    # Learning goes on as in a session where nothing has failed.
    other, plain = begun(name)
    assert_same(snapshot(other), before)
    for one, two in ((session, optimizer), (other, plain)):
        torch.manual_seed(5)
        for _ in range(2):
            step(one, two, x, y)
        one.end_experience([data()[1]])
    assert_same(snapshot(session), snapshot(other))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_fails_takes_the_other_rules_back(name):
    makes_update = from_config(name).makes_update
    last = (Last if makes_update else LastOfSteps)()
    session, optimizer = begun(name, last)
    x, y = data()[1]
    before = snapshot(session)
    for event in EVENTS[:2] if makes_update else EVENTS:
        last.fails = event
        with pytest.raises(Broken):
            step(session, optimizer, x, y)
        last.fails = ""
        assert_same(before, snapshot(session), event)
    session.synchronize()  # What an experience begins its end with, in rules that work weights out.
    before = snapshot(session)
    last.fails = "end_experience"
    with pytest.raises(Broken):
        session.end_experience([(x, y)])
    last.fails = ""
    assert_same(before, snapshot(session))
    step(session, optimizer, x, y)
    session.end_experience([(x, y)])
    assert session.experiences == 2


@pytest.mark.parametrize("name", RULES)
def test_a_batch_that_fails_among_accumulated_ones_takes_the_step_with_it(name):
    session, optimizer = begun(name)
    x, y = data()[1]
    before = snapshot(session)
    optimizer.zero_grad()
    for inputs, targets in zip(x.split(9), y.split(9), strict=True):
        session.before_forward(inputs, targets)
        F.cross_entropy(session.network(inputs), targets).backward()
        session.after_backward(loss_divisor=2)
    session.before_forward(x[:9], y[:9])
    session.abandon_step()
    assert_same(before, snapshot(session))


# Rules that leave it to the session to copy their memory before each step.
COPIED = ("continual-backprop", "shrink-and-perturb")


@pytest.mark.parametrize("name", RULES)
def test_memory_is_changed_in_place_only_when_the_step_is_certain(name):
    session, optimizer = begun(name)
    if not session.rules[0].stages_memory:
        assert name in COPIED  # Its memory is copied before each step.
        return
    x, y = data()[1]
    tensors = [(t, t._version) for t in session.rules[0].state.state_dict().values()]
    session.before_forward(x, y)
    F.cross_entropy(session.network(x), y).backward()
    session.after_backward()
    session.before_step(optimizer)
    assert all(t._version == version for t, version in tensors)


@pytest.mark.parametrize("name", RULES)
def test_an_experience_that_cannot_begin_leaves_nothing_behind(name):
    class Refusing(Rule):
        def begin_experience(self, synapses):
            raise Broken("this network")

    network, x, y = Network(), *data()[0]
    rule = from_config(name)
    refusing = Session(network, [rule, Refusing()])
    for _ in range(2):
        with pytest.raises(Broken):
            refusing.begin_experience()
        assert len(rule.state) == 0
    # Nor does one without a step, such as one whose first batch was bad.
    session = Session(network, rule)
    for _ in range(2):
        with pytest.raises(ValueError), session.experience([(x, y)]):  # noqa: PT011
            session.before_forward(x[:0], y[:0])
        assert len(rule.state) == 0


def test_an_interrupt_waits_for_the_step_to_be_complete(make_network, two_experiences, request):
    network, (x, y) = make_network(), two_experiences[0]
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)  # A process in the background ignores the signal.
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, outer))

    class Interrupted(Failing):
        def step(self, closure=None):
            os.kill(os.getpid(), signal.SIGINT)
            super().step(closure)

    session = Session(network, XdG(gated=0.5))
    optimizer = Interrupted(network.parameters(), lr=0.1)
    session.begin_experience()
    before = network[0].weight.detach().clone()
    with pytest.raises(KeyboardInterrupt):
        step(session, optimizer, x, y)
    assert session.steps == 1
    assert not torch.equal(before, network[0].weight)
    with interrupts_deferred():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", RULES)
def test_a_step_that_is_not_finite_can_be_left_out(name):
    session, optimizer = begun(name)
    x, y = data()[1]
    before = snapshot(session)[:3]
    session.non_finite = "skip"
    with pytest.warns(
        UserWarning, match=r"batch 2 of experience 1 .* was left out, since the loss, or the gradient of"
    ):
        step(session, optimizer, x, y, endless)
    assert_same([before[i] for i in (0, 2)], [snapshot(session)[i] for i in (0, 2)])
    assert session.steps == 2


def test_a_loss_that_is_not_a_number_names_its_batch(make_network, two_experiences):
    network, (x, y) = make_network(), two_experiences[0]
    session, optimizer = Session(network, MAS()), drivers.optimizer_for(network)
    session.begin_experience()
    step(session, optimizer, x, y)
    with pytest.raises(DivergedError, match=r"step on batch 1 of experience 0 \(both counted from 0\) was not taken"):
        step(session, optimizer, x, y, endless)
    with pytest.raises(DivergedError, match=r"gradient of '.*' is as large as .*e\+\d+, and its products overflow"):
        step(session, optimizer, x, y, lambda outputs, y: F.cross_entropy(outputs, y) * 1e28)
    with pytest.raises(ValueError, match="non_finite must be one of"):
        Session(network, MAS(), non_finite="ignore")


class InPlace(Rule):
    """As a beginner writes it: memory is changed in place at once."""

    def begin_experience(self, synapses):
        if "seen" not in self.state:
            self.state["seen"] = {
                name: torch.zeros_like(p) for name, p in zip(synapses.names, synapses.parameters, strict=True)
            }

    def gradient(self, synapses):
        for seen, gradient in zip(self.state.tensors("seen", synapses.names), synapses.gradients, strict=True):
            seen.add_(gradient)

    def update(self, synapses, before):
        if self.fails:
            raise Broken("late")

    fails = False


def test_a_rule_that_changes_memory_in_place_is_undone_too(make_network, two_experiences):
    network, (x, y), rule = make_network(), two_experiences[0], InPlace()
    session, optimizer = Session(network, rule), drivers.optimizer_for(network)
    session.begin_experience()
    step(session, optimizer, x, y)
    before = copy.deepcopy(rule.state.state_dict())
    rule.fails = True
    with pytest.raises(Broken):
        step(session, optimizer, x, y)
    assert_same(before, rule.state.state_dict())
    InPlace.stages_memory = True  # Which is not so.
    try:
        with (
            pytest.warns(UserWarning, match="has changed seen in the memory of InPlace in place"),
            pytest.raises(Broken),
        ):
            step(session, optimizer, x, y)
    finally:
        InPlace.stages_memory = False


def test_a_mark_holds_no_tensor_of_a_rule_that_stages_its_memory_twice(make_network):
    rule = from_config("si")
    session = Session(make_network(), rule)
    session.begin_experience()
    (held,) = (memory for _, _, memory in Mark([rule])._rules)
    assert held.quantities["path"]["0.weight"] is rule.state["path"]["0.weight"]


# Misuse.


@pytest.mark.parametrize("name", RULES)
def test_misuse_is_refused_and_changes_nothing(name):
    session, optimizer = begun(name)
    x, y = data()[1]
    before = snapshot(session)
    with pytest.raises(ValueError, match="begin_experience was called inside an experience"):
        session.begin_experience()
    with pytest.raises(ValueError, match="is learning in another session"):
        Session(Network(), session.rules[0]).begin_experience()
    with pytest.raises(ValueError, match=r"another session \(.*\) is in an experience of this network"):
        Session(session.network, from_config(name)).begin_experience()
    for convert, back in ((nn.Module.double, nn.Module.float), (nn.Module.half, nn.Module.float)):
        weights = copy.deepcopy(session.network.state_dict())
        convert(session.network)
        with pytest.raises(
            ValueError, match=r"was torch.float32 on cpu when the experience began, and is now torch.float"
        ):
            step(session, optimizer, x, y)
        back(session.network)
        session.network.load_state_dict(weights)
    before[3][2].copy_(torch.get_rng_state())  # Another network has drawn its weights.
    assert_same(before, snapshot(session))
    step(session, optimizer, x, y)
    session.end_experience([(x, y)])
    if len(session.rules[0].state):
        with pytest.raises(ValueError, match="has learned in another network"):
            Session(Network(), session.rules[0]).begin_experience()
    Session(session.network, from_config(name)).begin_experience()  # One after the other is no misuse.


@pytest.mark.parametrize("how", ("deepcopy", "pickle"))
@pytest.mark.parametrize("name", RULES)
def test_a_copy_goes_on_learning_to_the_same_bits(name, how, two_experiences):
    from torch.utils.data import DataLoader, TensorDataset

    from lit_meta import MetaplasticModule

    def fit(module, part):
        torch.manual_seed(7)
        drivers.trainer(max_epochs=1).fit(module, DataLoader(TensorDataset(*two_experiences[part]), batch_size=9))

    module = MetaplasticModule(Network(), rule=from_config(name))
    fit(module, 0)
    twin = copy.deepcopy(module) if how == "deepcopy" else pickle.loads(pickle.dumps(module))
    assert twin.plasticity.rules[0] is not module.plasticity.rules[0]
    fit(module, 1)
    fit(twin, 1)
    with torch.no_grad():
        for one, two in ((module, twin),):
            assert_same(one.network.state_dict(), two.network.state_dict())
            assert_same(one.plasticity.rules[0].state.state_dict(), two.plasticity.rules[0].state.state_dict())

"""Rules in several places of one Trainer: they get on with each other, or the fit is refused before it begins."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, EWC, NACA, SI, Metaplasticity, MetaplasticModule, RecursiveReadout
from tests.rules.drivers import UserModule, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


@pytest.fixture
def task(two_experiences):
    return DataLoader(TensorDataset(*two_experiences[0]), batch_size=9)


def assert_untouched(network, make_network):
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), make_network().parameters(), strict=True))


def test_a_trainers_rule_beside_the_modules_is_refused(make_network, task):
    module, own = MetaplasticModule(make_network(), rule=EWC()), Metaplasticity(SI(), network="network")
    with pytest.raises(ValueError, match=r"\(SI\), and the module brings its own \(EWC\)"):
        trainer(callbacks=[own]).fit(module, task)
    assert_untouched(module.network, make_network)


def test_a_trainer_may_go_from_module_to_module(make_network, task):
    # The first module's callback stays with the Trainer, and gives way to the second's.
    modules, fitted = [MetaplasticModule(make_network(), rule=EWC()) for _ in range(2)], trainer(max_epochs=1)
    for epochs, module in enumerate(modules, start=1):
        fitted.fit_loop.max_epochs = epochs
        fitted.fit(module, task)
        assert module.plasticity.session.experiences == 1


def test_a_module_without_a_rule_takes_the_trainers(make_network, task):
    rule = EWC()
    trainer(callbacks=[Metaplasticity(rule, network="network")]).fit(MetaplasticModule(make_network()), task)
    assert "importance" in rule.state


@pytest.mark.parametrize(
    ("rules", "message"),
    (
        ((BGD(), EWC()), "BGD makes the whole update"),
        ((EWC(), BGD()), "BGD makes the whole update"),
        ((EWC(), SI()), "put SI before EWC"),
        ((NACA(), SI()), "they cannot be combined"),
        ((NACA(), NACA(strength=0.5)), "both set the local errors"),
        ((RecursiveReadout(), NACA()), r"NACA in a callback of its own comes too late for RecursiveReadout"),
    ),
    ids=lambda value: value if isinstance(value, str) else "-".join(type(rule).__name__ for rule in value),
)
def test_rules_that_conflict_do_so_in_two_callbacks_as_in_one(rules, message, make_network, task):
    module = UserModule(make_network())
    # Lightning itself refuses two callbacks with the same rules and the same network.
    networks = ("body", "body" if type(rules[0]) is not type(rules[1]) else None)
    callbacks = [Metaplasticity(rule, network=name) for rule, name in zip(rules, networks, strict=True)]
    with pytest.raises(ValueError, match=message):
        trainer(callbacks=callbacks).fit(module, task)
    assert_untouched(module.body, make_network)


def test_rules_that_agree_learn_in_two_callbacks_as_in_one(make_network, two_experiences):
    weights = []
    for together in (True, False):
        module, rules = UserModule(make_network()), [SI(strength=2.0), EWC(strength=2.0)]
        groups = [rules] if together else [[rule] for rule in rules]
        callbacks = [Metaplasticity(group, network="body") for group in groups]
        for x, y in two_experiences:
            trainer(callbacks=callbacks).fit(module, DataLoader(TensorDataset(x, y), batch_size=9))
        weights.append(list(module.body.parameters()))
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


def test_rules_of_separate_parts_have_nothing_to_do_with_each_other(make_network, task):
    class Parts(UserModule):
        def __init__(self, network):
            super().__init__(network)
            self.lower, self.upper = nn.Sequential(network[0]), nn.Sequential(*network[2:])

    rules = [EWC(loss="mse"), BGD()]
    module = Parts(make_network())
    callbacks = [Metaplasticity(SI(), network="lower"), Metaplasticity(rules[1], network="upper")]
    trainer(callbacks=callbacks).fit(module, task)
    assert set(rules[1].state["deviation"]) == {name for name, _ in module.upper.named_parameters()}

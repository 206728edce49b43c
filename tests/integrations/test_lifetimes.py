"""What outlives a fit and what does not: averaged weights, unfrozen and replaced parameters, Trainers that are used again."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as library
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, EWC, MAS, NACA, SI, Metaplasticity, MetaplasticModule, RecursiveReadout, Session
from lit_meta.rules import BennaFusi
from tests.rules.drivers import UserModule, trainer

AVERAGING = {"swa": lambda: library.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)}
if hasattr(library, "EMAWeightAveraging"):
    AVERAGING["ema"] = lambda: library.EMAWeightAveraging(decay=0.9)


@pytest.fixture
def tasks(two_experiences):
    return [DataLoader(TensorDataset(x, y), batch_size=9) for x, y in two_experiences]


@pytest.mark.parametrize("order", ("averaging first", "rule first"))
@pytest.mark.parametrize("averaging", AVERAGING)
def test_the_weights_that_stay_are_the_ones_that_are_anchored(averaging, order, make_network, tasks):
    anchors = []
    for first in (order == "averaging first", True):
        rule, module = EWC(), UserModule(make_network())
        callbacks = [AVERAGING[averaging](), Metaplasticity(rule, network="body")]
        trainer(callbacks=callbacks if first else callbacks[::-1], max_epochs=3).fit(module, tasks[0])
        for name, parameter in module.body.named_parameters():
            assert torch.equal(rule.state["anchor"][name], parameter)
        anchors.append(rule.state.state_dict())
    assert all(torch.equal(tensor, anchors[1][key]) for key, tensor in anchors[0].items())


@pytest.mark.parametrize("averaging", AVERAGING)
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_rule_that_the_module_brings_goes_with_averaging_too(averaging, make_network, tasks):
    module = MetaplasticModule(make_network(), rule=SI())
    for task in tasks:
        trainer(callbacks=[AVERAGING[averaging]()], max_epochs=3).fit(module, task)
        for name, parameter in module.network.named_parameters():
            assert torch.equal(module.plasticity.rules[0].state["anchor"][name], parameter)
    assert module.plasticity.session.experiences == 2


@pytest.mark.parametrize("averaging", AVERAGING)
def test_averaging_does_not_go_with_weights_that_are_worked_out(averaging, make_network, tasks):
    callbacks = [AVERAGING[averaging](), Metaplasticity(RecursiveReadout(), network="body")]
    with pytest.raises(ValueError, match="RecursiveReadout works weights out from its memory"):
        trainer(callbacks=callbacks).fit(UserModule(make_network()), tasks[0])


class Tuned(UserModule):
    """Learns its head alone at first, and all layers from epoch 1 on."""

    def __init__(self, network):
        super().__init__(network)
        self.backbone = network[0]

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)


class Thaws(library.BaseFinetuning):
    """Unfreezes the backbone at epoch 1, and lets it learn as fast as the head."""

    def freeze_before_training(self, module):
        self.freeze(module.backbone)

    def finetune_function(self, module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.backbone, optimizer, lr=0.05, initial_denom_lr=1.0)


def fit_tuned(rule, make_network, task, epochs=3, thaw=None):
    module, thaw = Tuned(make_network()), thaw or library.BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    trainer(callbacks=[Metaplasticity(rule, network="body"), thaw], max_epochs=epochs).fit(module, task)
    return module


@pytest.mark.parametrize("rule", (EWC(), MAS(), SI()), ids=repr)
def test_what_is_unfrozen_inside_an_experience_is_consolidated(rule, make_network, tasks):
    module, before = fit_tuned(rule, make_network, tasks[0]), make_network()
    assert not torch.equal(module.body[0].weight, before[0].weight)
    assert list(rule.state["importance"]) == [name for name, _ in before.named_parameters()]
    for name, parameter in module.body.named_parameters():
        assert torch.equal(rule.state["anchor"][name], parameter)
        assert float(rule.state["importance"][name].abs().sum()) > 0


def test_importance_of_what_is_unfrozen_is_that_of_its_own_path(make_network, tasks):
    """Against a loop by hand: ω = −Σ g Δθ from the epoch in which a parameter learns."""
    rule, network = SI(damping=0.1), make_network()
    fit_tuned(rule, make_network, tasks[0], thaw=Thaws())
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    path = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    for epoch in range(3):
        learns = {n: p for n, p in network.named_parameters() if epoch > 0 or not n.startswith("0.")}
        for x, y in tasks[0]:
            network.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            for name, parameter in learns.items():
                with torch.no_grad():
                    change = -0.05 * parameter.grad
                    path[name] -= parameter.grad * change
                    parameter += change
    for name, parameter in network.named_parameters():
        importance = (path[name] / ((parameter.detach() - start[name]).square() + 0.1)).clamp(min=0)
        torch.testing.assert_close(rule.state["importance"][name], importance, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rule", (BGD(), NACA(), BennaFusi()), ids=repr)
def test_rules_that_learn_by_themselves_take_up_what_is_unfrozen(rule, make_network, tasks):
    first = make_network()[0].weight
    module = fit_tuned(rule, make_network, tasks[0])
    assert not torch.equal(module.body[0].weight, first)
    if isinstance(rule, BGD):
        assert set(rule.state["deviation"]) == {name for name, _ in module.body.named_parameters()}


def test_what_is_unfrozen_is_protected_in_the_next_experience(make_network, tasks):
    drift = []
    for strength in (0.0, 1000.0):
        callback, module = Metaplasticity(SI(strength=strength), network="body"), Tuned(make_network())
        trainer(callbacks=[callback, Thaws()], max_epochs=3).fit(module, tasks[0])
        before = module.body[0].weight.detach().clone()
        trainer(callbacks=[callback, Thaws()], max_epochs=3).fit(module, tasks[1])
        drift.append(float((module.body[0].weight.detach() - before).norm()))
    assert drift[1] < 0.9 * drift[0]


@pytest.mark.parametrize("rule", (EWC(), MAS(), SI()), ids=repr)
def test_what_is_frozen_inside_an_experience_is_consolidated_as_well(rule, make_network, tasks):
    class Freezes(L.Callback):
        def on_train_epoch_start(self, fitted, module):
            module.body[0].requires_grad_(fitted.current_epoch == 0)

    module = UserModule(make_network())
    trainer(callbacks=[Metaplasticity(rule, network="body"), Freezes()]).fit(module, tasks[0])
    assert not module.body[0].weight.requires_grad
    for name, parameter in module.body.named_parameters():
        assert torch.equal(rule.state["anchor"][name], parameter)
        assert float(rule.state["importance"][name].abs().sum()) > 0


@pytest.mark.parametrize("classes", (4, 7))
@pytest.mark.parametrize("rule", (EWC(), SI(), BGD()), ids=repr)
def test_a_fresh_head_does_not_inherit_what_the_old_one_was_worth(rule, classes, make_network, tasks):
    rule, network = rule.clone(), make_network()
    module, callback = UserModule(network), Metaplasticity(rule, network="body")
    trainer(callbacks=[callback]).fit(module, tasks[0])
    quantity = "deviation" if isinstance(rule, BGD) else "importance"
    kept = rule.state[quantity]["0.weight"].clone()
    network[4] = nn.Linear(10, classes)
    fresh = network[4].weight.detach().clone()
    with pytest.warns(UserWarning, match=r"4\.weight, 4\.bias were replaced by new parameters"):
        callback.session.begin_experience()
    assert "4.weight" not in rule.state[quantity]
    assert torch.equal(rule.state[quantity]["0.weight"], kept)
    assert torch.equal(network[4].weight, fresh)


def test_a_head_with_the_old_values_in_it_goes_on(make_network, tasks):
    rule, network = EWC(), make_network()
    module, callback = UserModule(network), Metaplasticity(rule, network="body")
    trainer(callbacks=[callback]).fit(module, tasks[0])
    held = rule.state["importance"]["4.weight"].clone()
    head = nn.Linear(10, 4)
    head.load_state_dict(network[4].state_dict())
    network[4] = head
    callback.session.begin_experience()
    assert torch.equal(rule.state["importance"]["4.weight"], held)


def test_a_fresh_head_learns_as_freely_as_in_a_network_of_its_own(make_network, two_experiences):
    """The pull of the penalty on a fresh head is nothing, by hand."""
    (x, y), (other, labels) = two_experiences
    network, rule = make_network(), EWC(strength=100.0)
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.05)
    with session.experience([(x, y)]), session.step(x, y, optimizer):
        nn.functional.cross_entropy(network(x), y).backward()
    network[4] = nn.Linear(10, 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    nn.functional.cross_entropy(network(other), labels).backward()
    gradient = network[4].weight.grad.clone()
    network.zero_grad()
    with pytest.warns(UserWarning, match="were replaced"):
        session.begin_experience()
    session.before_forward(other, labels)
    nn.functional.cross_entropy(network(other), labels).backward()
    session.after_backward()
    session.before_step(optimizer)
    assert torch.equal(network[4].weight.grad, gradient)


@pytest.mark.parametrize("options", ({"max_epochs": 2}, {"max_epochs": None, "max_steps": 4}), ids=("epochs", "steps"))
def test_a_second_fit_that_trains_nothing_is_an_error(options, make_network, tasks):
    callback = Metaplasticity(EWC(), network="body")
    fitted, module = trainer(callbacks=[callback], **options), UserModule(make_network())
    fitted.fit(module, tasks[0])
    weights = [p.detach().clone() for p in module.body.parameters()]
    with pytest.raises(ValueError, match="took no training step"):
        fitted.fit(module, tasks[1])
    assert all(torch.equal(p, w) for p, w in zip(module.body.parameters(), weights, strict=True))
    assert callback.session.experiences == 1
    # A new Trainer goes on as if nothing had been.
    trainer(callbacks=[callback]).fit(module, tasks[1])
    assert callback.session.experiences == 2


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_so_it_is_with_a_rule_that_the_module_brings(make_network, tasks):
    module, fitted = MetaplasticModule(make_network(), rule=EWC()), trainer()
    fitted.fit(module, tasks[0])
    with pytest.raises(ValueError, match="took no training step"):
        fitted.fit(module, tasks[1])


def test_a_trainer_with_epochs_left_learns_a_second_experience(make_network, tasks):
    callback = Metaplasticity(EWC(), network="body")
    fitted, module = trainer(callbacks=[callback], max_epochs=1), UserModule(make_network())
    fitted.fit(module, tasks[0])
    fitted.fit_loop.max_epochs = 2
    fitted.fit(module, tasks[1])
    assert callback.session.experiences == 2


def test_weights_that_another_callback_changes_after_consolidation_are_told_of(make_network, tasks):
    class RestoresFirst(L.Callback):
        """What users write to end with the best weights rather than the last."""

        def on_fit_start(self, fitted, module):
            self.kept = [p.detach().clone() for p in module.parameters()]

        def on_train_end(self, fitted, module):
            for parameter, value in zip(module.parameters(), self.kept, strict=True):
                parameter.data.copy_(value)

    rule, module = EWC(), UserModule(make_network())
    callbacks = [Metaplasticity(rule, network="body"), RestoresFirst()]
    with pytest.warns(UserWarning, match="changed after EWC had consolidated"):
        trainer(callbacks=callbacks).fit(module, tasks[0])
    rule, module = EWC(), UserModule(make_network())
    trainer(callbacks=[RestoresFirst(), Metaplasticity(rule, network="body")]).fit(module, tasks[0])
    assert all(torch.equal(rule.state["anchor"][name], p) for name, p in module.body.named_parameters())

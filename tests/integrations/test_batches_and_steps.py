"""A batch is not always a step: what was skipped does not count, what was accumulated counts once."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, EWC, MESU, NACA, SI, Metaplasticity, MetaplasticModule, RecursiveReadout
from lit_meta.rules import HLOP, StreamingLDA
from tests.rules.drivers import UserModule, trainer

X = torch.randn(24, 8, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 4
SKIPPED = pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`")


def loader(x=X, y=Y, size=4):
    return DataLoader(TensorDataset(x, y), batch_size=size)


class Skips(UserModule):
    """Leaves out the batches in ``left_out``: training_step returns None, as users do where a loss is not finite."""

    left_out: tuple[int, ...] = ()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx in self.left_out else loss


class StopsEpoch(UserModule):
    """Skips the rest of an epoch from a batch on."""

    at = 2

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == self.at else None


def weights(module):
    return [p.detach().clone() for p in module.body.parameters()]


def fit(module, rule, data, **options):
    options = {"max_epochs": 1, **options}
    trainer(callbacks=[Metaplasticity(rule, network="body")], **options).fit(module, data)
    return module


@SKIPPED
@pytest.mark.parametrize(
    "rule",
    (RecursiveReadout(), StreamingLDA(), HLOP(neurons=3), BGD(), MESU(), NACA(), SI(), EWC(loss="cross_entropy")),
    ids=repr,
)
def test_a_skipped_batch_is_as_if_it_had_not_been_there(rule, make_network):
    skips = Skips(make_network())
    skips.left_out = (0, 3)
    kept = torch.cat([torch.arange(4, 12), torch.arange(16, 24)])
    skipping, plain = rule.clone(), rule.clone()
    fit(skips, skipping, loader(), max_epochs=2)
    expected = fit(UserModule(make_network()), plain, loader(X[kept], Y[kept]), max_epochs=2)
    for got, right in zip(weights(skips), weights(expected), strict=True):
        torch.testing.assert_close(got, right, rtol=0, atol=0)
    if isinstance(rule, EWC):
        return  # Consolidation reads all of the data, whatever training made of it.
    memory = plain.state.state_dict()
    for key, tensor in skipping.state.state_dict().items():
        torch.testing.assert_close(tensor, memory[key], rtol=0, atol=0)


@SKIPPED
@pytest.mark.parametrize("rule", (RecursiveReadout(), BGD(), NACA()), ids=repr)
def test_a_batch_skipped_among_accumulated_ones_is_not_counted(rule, make_network):
    # Lightning divides the loss by 3 also where only two of three batches have one: the step of a gradient rule is shorter, as
    # without a rule; that of BGD, whose loss is a likelihood, is not.
    skips = Skips(make_network())
    skips.left_out = (1,)
    got = fit(skips, rule.clone(), loader(X[:12], Y[:12]), accumulate_grad_batches=3)
    kept = torch.cat([torch.arange(0, 4), torch.arange(8, 12)])
    expected = fit(UserModule(make_network()), rule.clone(), loader(X[kept], Y[kept]), accumulate_grad_batches=2)
    start = [p.detach() for p in make_network().parameters()]
    factor = 2 / 3 if isinstance(rule, NACA) else 1.0
    for begin, a, b in zip(start, weights(got), weights(expected), strict=True):
        torch.testing.assert_close(a - begin, factor * (b - begin), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", (BGD(limit=float("inf"), deviation=1e-3), MESU(deviation=1e-3)), ids=repr)
@pytest.mark.parametrize("reduction", ("mean", "sum"))
def test_incomplete_accumulation_steps_as_far_as_the_data_say(rule, reduction, make_network):
    class Reduced(UserModule):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1], reduction=reduction)

    changes = []
    for accumulate in (1, 4):
        module = Reduced(make_network())
        start = weights(module)
        own = type(rule)(**{**rule.hyperparameters, "loss_reduction": reduction})
        fit(module, own, loader(X[:4], Y[:4]), accumulate_grad_batches=accumulate)
        changes.append([a - b for a, b in zip(weights(module), start, strict=True)])
    for one, four in zip(*changes, strict=True):
        torch.testing.assert_close(four, one, rtol=1e-4, atol=1e-9)


def test_an_accumulation_schedule_is_followed_step_by_step(make_network):
    # 6 batches: ceil(6 / 4) steps in the first epoch, 6 in the second.
    rule = EWC(loss="cross_entropy")
    callback = Metaplasticity(rule, network="body")
    steps = []

    class Counts(UserModule):
        def on_train_end(self):
            steps.append(callback.session.steps)

    trainer(callbacks=[callback, GradientAccumulationScheduler({0: 4, 1: 1})]).fit(Counts(make_network()), loader())
    assert steps == [2 + 6]


@pytest.mark.parametrize("rule", (BGD(), RecursiveReadout(), NACA()), ids=repr)
def test_an_epoch_cut_short_leaves_no_part_of_a_step_behind(rule, make_network):
    # Batches 0 and 1 of each epoch are accumulated for a step that does not come: Lightning throws their gradients away.
    module = StopsEpoch(make_network())
    own = rule.clone()
    callback = Metaplasticity(own, network="body")
    with pytest.raises(ValueError, match="the experience is empty"):
        trainer(callbacks=[callback], accumulate_grad_batches=3, max_epochs=2).fit(module, loader())
    for got, right in zip(module.body.parameters(), make_network().parameters(), strict=True):
        assert torch.equal(got, right)
    assert "class_counts" not in own.state
    assert not callback.session._local._gradients


@pytest.mark.parametrize("rule", (BGD(limit=float("inf")), NACA(), RecursiveReadout()), ids=repr)
def test_a_whole_epoch_after_one_cut_short_is_like_the_first(rule, make_network):
    class FirstOnly(StopsEpoch):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 and self.current_epoch == 0 else None

    # The noise goes on, so that BGD is compared in the number of its samples: the step is as long as the data say.
    own = rule.clone()
    module = fit(FirstOnly(make_network()), own, loader(X[:12], Y[:12]), accumulate_grad_batches=3, max_epochs=2)
    if isinstance(rule, BGD):
        assert own._samples == 12
        return
    expected = fit(UserModule(make_network()), rule.clone(), loader(X[:12], Y[:12]), accumulate_grad_batches=3)
    for got, right in zip(weights(module), weights(expected), strict=True):
        assert torch.equal(got, right)


class Manual(UserModule):
    """Manual optimization; ``backward`` is the module's or the tensor's."""

    automatic_optimization = False

    def __init__(self, network, *, announced):
        super().__init__(network)
        self.automatic_optimization = False
        self.announced = announced

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        if self.announced:
            self.manual_backward(loss)
        else:
            loss.backward()
        optimizer.step()


@pytest.mark.parametrize("rule", (NACA(), BGD(), RecursiveReadout(), EWC(loss="cross_entropy"), SI()), ids=repr)
def test_manual_optimization_is_like_automatic(rule, make_network):
    manual = fit(Manual(make_network(), announced=True), rule.clone(), loader())
    automatic = fit(UserModule(make_network()), rule.clone(), loader())
    for got, right in zip(weights(manual), weights(automatic), strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("rule", (NACA(), BGD(), MESU(), RecursiveReadout()), ids=repr)
def test_a_backward_pass_that_nobody_announced_is_refused_before_the_first_step(rule, make_network):
    module = Manual(make_network(), announced=False)
    with pytest.raises(ValueError, match=r"self\.manual_backward\(loss\) in place of loss\.backward\(\)"):
        fit(module, rule.clone(), loader())
    for got, right in zip(module.body.parameters(), make_network().parameters(), strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("rule", (EWC(loss="cross_entropy"), SI()), ids=repr)
def test_rules_that_do_not_need_it_do_without_the_announcement(rule, make_network):
    plain = fit(Manual(make_network(), announced=False), rule.clone(), loader())
    told = fit(Manual(make_network(), announced=True), rule.clone(), loader())
    for got, right in zip(weights(plain), weights(told), strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("rule", (NACA(), BGD(), SI(), EWC(loss="cross_entropy")), ids=repr)
def test_one_network_and_two_optimizers_learn_as_with_one(rule, make_network):
    class Two(Manual):
        def configure_optimizers(self):
            return [
                torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9) for layer in (self.body[:2], self.body[2:])
            ]

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            loss = UserModule.training_step(self, batch, batch_idx)
            first.zero_grad()
            second.zero_grad()
            self.manual_backward(loss)
            first.step()
            second.step()

    two = fit(Two(make_network(), announced=True), rule.clone(), loader())
    one = fit(UserModule(make_network()), rule.clone(), loader())
    for got, right in zip(weights(two), weights(one), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-6, atol=1e-7)


class Adversarial(UserModule):
    """Two networks that learn in turn from losses of their own: a GAN in its form."""

    def __init__(self, network):
        super().__init__(network)
        self.automatic_optimization = False
        self.generator = nn.Linear(8, 8)

    def configure_optimizers(self):
        parts = (self.body, self.generator)
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in parts]

    def training_step(self, batch, batch_idx):
        judge, forger = self.optimizers()
        self.toggle_optimizer(judge)
        self.manual_backward(F.cross_entropy(self.body(batch[0]), batch[1]))
        judge.step()
        judge.zero_grad()
        self.untoggle_optimizer(judge)
        self.toggle_optimizer(forger)
        self.manual_backward(-F.cross_entropy(self.body(self.generator(batch[0])), batch[1]))
        forger.step()
        forger.zero_grad()
        self.untoggle_optimizer(forger)


def test_penalties_work_where_two_optimizers_take_turns(make_network):
    torch.manual_seed(0)
    module, rule = Adversarial(make_network()), EWC(strength=50.0, loss="cross_entropy")
    fit(module, rule, loader())
    body, generator = copy.deepcopy(module.body), copy.deepcopy(module.generator)
    importance, anchor = dict(rule.state["importance"]), dict(rule.state["anchor"])
    fit(module, rule, loader(X + 1, (Y + 1) % 4))
    # By hand, from where the first experience ended.
    judge, forger = (torch.optim.SGD(part.parameters(), lr=0.05) for part in (body, generator))
    for inputs, targets in loader(X + 1, (Y + 1) % 4):
        penalty = sum((importance[n] * (p - anchor[n]).square()).sum() for n, p in body.named_parameters())
        judge.zero_grad()
        (F.cross_entropy(body(inputs), targets) + 25.0 * penalty).backward()
        judge.step()
        forger.zero_grad()
        (-F.cross_entropy(body(generator(inputs)), targets)).backward()
        forger.step()
    for got, right in zip(module.body.parameters(), body.parameters(), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)
    for got, right in zip(module.generator.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", (BGD(), NACA(), RecursiveReadout()), ids=repr)
def test_several_backward_passes_in_a_step_are_refused_where_one_is_needed(rule, make_network):
    # The readout notices first that its features are being trained.
    with pytest.raises(ValueError, match=r"one backward pass for each batch|outside it that are being trained"):
        fit(Adversarial(make_network()), rule.clone(), loader())


@pytest.mark.parametrize("rule", (EWC(loss="cross_entropy"), SI(), BGD(), RecursiveReadout()), ids=repr)
def test_lbfgs_is_refused_before_the_first_batch(rule, make_network):
    class Quasi(UserModule):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1)

        def training_step(self, batch, batch_idx):
            raise AssertionError("a batch has come")

    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        fit(Quasi(make_network()), rule.clone(), loader())


class Sharpness(torch.optim.SGD):
    """Evaluates its closure twice in one step, as sharpness-aware minimisation does."""

    def step(self, closure=None):
        closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad, alpha=0.05)
        return super().step(closure)


@pytest.mark.parametrize("rule", (EWC(loss="cross_entropy"), SI(), RecursiveReadout(freeze=False)), ids=repr)
def test_an_optimizer_that_evaluates_its_closure_twice_is_refused_in_its_first_step(rule, make_network):
    class Sharp(UserModule):
        def configure_optimizers(self):
            return Sharpness(self.parameters(), lr=0.05)

    with pytest.raises(ValueError, match=r"several times in one step|one backward pass for each batch"):
        fit(Sharp(make_network()), rule.clone(), loader())


@pytest.mark.parametrize("rule", (BGD(), MESU(), RecursiveReadout()), ids=repr)
def test_clipping_entries_of_gradients_that_a_rule_clears_is_refused_at_the_start(rule, make_network):
    with pytest.raises(ValueError, match="gradient_clip_algorithm='value'"):
        fit(UserModule(make_network()), rule.clone(), loader(), gradient_clip_val=1.0, gradient_clip_algorithm="value")


def test_clipping_entries_is_no_matter_where_gradients_stay(make_network):
    options = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value", "max_epochs": 1}
    for rule in (EWC(loss="cross_entropy"), NACA(), RecursiveReadout(freeze=False)):
        module = UserModule(make_network())
        start = [p.detach().clone() for p in module.body[0].parameters()]
        fit(module, rule, loader(size=24), **options)
        for before, after in zip(start, module.body[0].parameters(), strict=True):
            assert 0 < float((after.detach() - before).abs().max()) <= 0.05 * 1e-3 + 1e-8


def test_gradients_that_the_host_throws_away_under_manual_optimization_do_not_count(make_network):
    class DropsEveryOther(Manual):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            loss = UserModule.training_step(self, batch, batch_idx)
            self.manual_backward(loss)
            if batch_idx % 2:
                optimizer.step()
            optimizer.zero_grad()

    rule = RecursiveReadout()
    fit(DropsEveryOther(make_network(), announced=True), rule, loader())
    assert float(rule.state.overall["class_counts"].sum()) == 12


@SKIPPED
def test_an_experience_of_skipped_batches_alone_is_empty(make_network):
    module = Skips(make_network())
    module.left_out = tuple(range(6))
    with pytest.raises(ValueError, match="the experience is empty"):
        fit(module, EWC(loss="cross_entropy"), loader())


@SKIPPED
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_the_wrapper_follows_too(make_network):
    class SkipsFirst(MetaplasticModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 0 else loss

    rule = RecursiveReadout()
    module = SkipsFirst(make_network(), rule=rule)
    trainer(max_epochs=1).fit(module, loader())
    assert float(rule.state.overall["class_counts"].sum()) == 20

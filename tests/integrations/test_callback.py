"""The callback inside a Trainer: checkpoints, clipping, logging, errors, several fits."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import EWC, NACA, Metaplasticity, MetaplasticModule, Session
from tests.rules.drivers import UserModule, trainer


@pytest.fixture
def loaders(two_experiences):
    return [DataLoader(TensorDataset(x, y), batch_size=9) for x, y in two_experiences]


def test_the_rules_memory_is_in_the_trainers_checkpoint(make_network, loaders, tmp_path):
    callback = Metaplasticity(EWC(), network="body")
    module = UserModule(make_network())
    first = trainer(callbacks=[callback])
    first.fit(module, loaders[0])
    first.save_checkpoint(tmp_path / "after.ckpt")
    importance = {name: t.clone() for name, t in callback.rules[0].state["importance"].items()}

    fresh = Metaplasticity(EWC(mode="online", decay=0.0), network="body")
    # The checkpoint has had its epochs, so the second experience needs more of them.
    trainer(callbacks=[fresh], max_epochs=4).fit(
        UserModule(make_network(1)), loaders[1], ckpt_path=tmp_path / "after.ckpt"
    )
    assert fresh.session.experiences == 2
    # With decay 0 the new importance is that of the second experience alone; the offline rule adds it to the first.
    offline = Metaplasticity(EWC(), network="body")
    trainer(callbacks=[offline], max_epochs=4).fit(
        UserModule(make_network(1)), loaders[1], ckpt_path=tmp_path / "after.ckpt"
    )
    assert all((t > importance[name]).any() for name, t in offline.rules[0].state["importance"].items())
    assert all((t >= importance[name]).all() for name, t in offline.rules[0].state["importance"].items())


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_crash_in_the_middle_of_an_experience_goes_on_to_the_same_bits(make_network, loaders, tmp_path):
    expected = UserModule(make_network())
    trainer(callbacks=[Metaplasticity(NACA(), network="body")], max_epochs=4).fit(expected, loaders[0])
    saver = ModelCheckpoint(tmp_path, every_n_epochs=2, save_top_k=-1, filename="{epoch}")
    trainer(callbacks=[Metaplasticity(NACA(), network="body"), saver], max_epochs=4, enable_checkpointing=True).fit(
        UserModule(make_network()), loaders[0]
    )
    resumed = UserModule(make_network(1))
    saver = ModelCheckpoint(tmp_path / "again", every_n_epochs=2, save_top_k=-1, filename="{epoch}")
    trainer(callbacks=[Metaplasticity(NACA(), network="body"), saver], max_epochs=4, enable_checkpointing=True).fit(
        resumed, loaders[0], ckpt_path=tmp_path / "epoch=1.ckpt"
    )
    for one, two in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("rule", (EWC(), NACA()), ids=lambda r: type(r).__name__)
def test_accumulated_batches_are_one_large_batch(rule, make_network, two_experiences):
    (x, y), _ = two_experiences
    found = []
    for size, accumulate in ((36, 1), (9, 4)):
        module = UserModule(make_network())
        callback = Metaplasticity(rule.clone(), network="body")
        trainer(callbacks=[callback], accumulate_grad_batches=accumulate).fit(
            module, DataLoader(TensorDataset(x, y), batch_size=size)
        )
        found.append([p.detach() for p in module.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_clipping_comes_after_the_rule(make_network, two_experiences):
    (x, y), _ = two_experiences
    norms = []

    class Watch(UserModule):
        def on_before_zero_grad(self, optimizer):
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            if grads:
                norms.append(torch.stack([g.norm() for g in grads]).norm())

    trainer(callbacks=[Metaplasticity(NACA(strength=50.0), network="body")], gradient_clip_val=0.1, max_epochs=3).fit(
        Watch(make_network()), DataLoader(TensorDataset(x, y), batch_size=9)
    )
    assert norms
    assert max(norms) <= 0.1 + 1e-5
    assert max(norms) > 0.09  # It was the clipping that bounded them.


def test_the_penalty_is_logged_beside_the_loss(make_network, loaders, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    module = MetaplasticModule(make_network(), rule=EWC(strength=5.0))
    for number, loader in enumerate(loaders):
        logger = CSVLogger(tmp_path, name="log", version=number)
        trainer(logger=logger, log_every_n_steps=1).fit(module, loader)
        logger.finalize("success")
    heads = [(tmp_path / "log" / f"version_{n}" / "metrics.csv").read_text().splitlines()[0] for n in (0, 1)]
    assert "ewc/penalty" not in heads[0]
    assert "ewc/penalty" in heads[1]
    assert "loss" in heads[1]


def test_an_error_in_training_takes_the_hooks_away(make_network, loaders):
    class Fails(UserModule):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise OSError("disk on fire")
            return super().training_step(batch, batch_idx)

    module = Fails(make_network())
    with pytest.raises(OSError, match="disk on fire"):
        trainer(callbacks=[Metaplasticity(NACA(), network="body")]).fit(module, loaders[0])
    assert all(not m._forward_pre_hooks for m in module.modules())


def test_a_validation_loop_is_not_training(make_network, loaders):
    class Validates(UserModule):
        def validation_step(self, batch, batch_idx):
            with torch.enable_grad():  # Even with gradients on, the chain is whole outside training steps.
                assert self(batch[0]).requires_grad

    trainer(callbacks=[Metaplasticity(NACA(), network="body")]).fit(Validates(make_network()), loaders[0], loaders[1])


def test_one_rule_learns_in_one_network(make_network, loaders):
    callback = Metaplasticity(EWC(), network="body")
    trainer(callbacks=[callback]).fit(UserModule(make_network()), loaders[0])
    with pytest.raises(ValueError, match="learned in another network"):
        trainer(callbacks=[callback]).fit(UserModule(make_network()), loaders[1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    (
        (lambda: Metaplasticity(EWC), TypeError, r"write EWC\(\)"),
        (lambda: Metaplasticity([]), ValueError, "no rule was given"),
        (lambda: Metaplasticity([NACA(), NACA()]), ValueError, "both set the local errors"),
        (lambda: Metaplasticity(object()), TypeError, "instance of lit_meta.Rule"),
        (lambda: MetaplasticModule(nn.Linear(2, 2), loss="hinge"), KeyError, "unknown loss 'hinge'"),
        (lambda: MetaplasticModule("resnet18"), KeyError, "unknown network 'resnet18'"),
        (lambda: MetaplasticModule(18), TypeError, "network"),
        (lambda: MetaplasticModule(nn.Linear(2, 2), optimizer={"lr": 1}), ValueError, "class_path"),
        (lambda: Session(nn.Flatten(), EWC()), ValueError, "no weight layer"),
    ),
)
def test_bad_beginnings(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_attribute_that_is_not_there_is_named(make_network, loaders):
    with pytest.raises(ValueError, match="no attribute 'head' to attach to; its modules: body"):
        trainer(callbacks=[Metaplasticity(EWC(), network="head")]).fit(UserModule(make_network()), loaders[0])


def test_batches_of_another_form_need_a_function_where_a_rule_reads_labels(make_network, two_experiences):
    (x, y), _ = two_experiences

    class Dictionaries(UserModule):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch["image"]), batch["digit"])

    samples = [{"image": a, "digit": b} for a, b in zip(x, y, strict=True)]
    loader = DataLoader(samples, batch_size=9)
    with pytest.raises(
        TypeError, match=r"NACA needs to know inputs and labels, and .* pass a function that returns .inputs, targets."
    ):
        trainer(callbacks=[Metaplasticity(NACA(), network="body")]).fit(Dictionaries(make_network()), loader)
    importance = {}
    for unpack in ({}, {"unpack": lambda batch: (batch["image"], batch["digit"])}):
        rule = EWC()  # Which leaves labels to the training step.
        trainer(callbacks=[Metaplasticity(rule, network="body", **unpack)]).fit(Dictionaries(make_network()), loader)
        importance[bool(unpack)] = rule.state["importance"]
    for name, tensor in importance[True].items():
        torch.testing.assert_close(importance[False][name], tensor)


def test_everything_frozen_is_refused(make_network, loaders):
    network = make_network().requires_grad_(False)
    with pytest.raises(ValueError, match="everything is frozen"):
        Session(network, EWC()).begin_experience()

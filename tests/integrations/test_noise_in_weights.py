"""BGD and MESU never leave their noise in the weights, however a batch, an epoch or a fit ends."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, MESU, Metaplasticity
from tests.rules.drivers import UserModule, trainer

X = torch.randn(24, 8, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 4
RULES = pytest.mark.parametrize("rule", (BGD(), MESU()), ids=("bgd", "mesu"))


def loader(size=4):
    return DataLoader(TensorDataset(X, Y), batch_size=size)


def clean(module):
    """Whether no parameter is perturbed: nothing has stepped, so that all must be as they were made."""
    return all(torch.equal(p, q) for p, q in zip(module.body.parameters(), module.untouched, strict=True))


class Module(UserModule):
    """Never comes to a step with the gradients of its batches: its training_step does what ``act`` does."""

    def __init__(self, network, act=lambda module, batch_idx: None):
        super().__init__(network)
        self.untouched = [p.detach().clone() for p in network.parameters()]
        self.act = act

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        assert not clean(self)  # The pass that the test is about is a perturbed one.
        return loss if self.act(self, batch_idx) == "learn" else None

    def validation_step(self, batch, batch_idx):
        assert clean(self)


class Looks(L.Callback):
    """Looks at the weights wherever users do."""

    def on_train_batch_end(self, fitted, module, *args):
        assert clean(module)

    def on_validation_start(self, fitted, module):
        assert clean(module)

    on_train_epoch_end = on_train_end = on_exception = on_train_batch_end


def fit(rule, module, *others, val=None, **options):
    callbacks = [Metaplasticity(rule, network="body"), Looks(), *others]
    trainer(callbacks=callbacks, **{"max_epochs": 1, **options}).fit(module, loader(), val)


@RULES
@pytest.mark.parametrize("accumulate", (1, 4))
@pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`")
def test_after_a_skipped_batch_and_in_the_validation_that_follows(rule, accumulate, make_network):
    module = Module(make_network())
    with pytest.raises(ValueError, match="the experience is empty"):
        fit(rule.clone(), module, val=loader(), val_check_interval=1, accumulate_grad_batches=accumulate)
    assert clean(module)


@RULES
@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path=")
@pytest.mark.parametrize("how", (RuntimeError("out of luck"), KeyboardInterrupt()), ids=("error", "interrupt"))
def test_after_an_exception(rule, how, make_network, tmp_path):
    def act(module, batch_idx):
        raise how

    module = Module(make_network(), act)
    with pytest.raises((RuntimeError, SystemExit)):
        fit(rule.clone(), module, OnExceptionCheckpoint(tmp_path), enable_checkpointing=True)
    assert clean(module)
    saved = torch.load(tmp_path / "on_exception.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(t, saved[f"body.{n}"]) for n, t in make_network().state_dict().items())


@RULES
def test_after_an_epoch_that_is_cut_short(rule, make_network, tmp_path):
    class Cut(Module):
        def on_train_batch_start(self, batch, batch_idx):
            assert not clean(self)
            return -1

    module = Cut(make_network())
    saver = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(ValueError, match="the experience is empty"):
        fit(rule.clone(), module, saver, enable_checkpointing=True)
    assert clean(module)


@RULES
def test_in_checkpoints_saved_while_gradients_are_accumulated(rule, make_network, tmp_path):
    class Saves(L.Callback):
        """At the end of a batch, and in its middle, where the weights are perturbed."""

        def on_train_batch_end(self, fitted, module, outputs, batch, batch_idx):
            fitted.save_checkpoint(tmp_path / f"end-{batch_idx}.ckpt")

    def act(module, batch_idx):
        if batch_idx < 3:
            module.trainer.save_checkpoint(tmp_path / f"middle-{batch_idx}.ckpt")
        return "learn"

    module = Module(make_network(), act)
    module.trainer = None
    callbacks = [Saves(), Metaplasticity(rule.clone(), network="body")]
    trainer(callbacks=callbacks, max_epochs=1, accumulate_grad_batches=4, limit_train_batches=4).fit(module, loader())
    assert not clean(module)  # The fourth batch has stepped.
    for name in (f"{where}-{k}" for where in ("middle", "end") for k in range(3)):
        saved = torch.load(tmp_path / f"{name}.ckpt", weights_only=False)["state_dict"]
        assert all(torch.equal(t, saved[f"body.{n}"]) for n, t in make_network().state_dict().items()), name


@RULES
def test_when_training_stops_while_gradients_are_accumulated(rule, make_network):
    def act(module, batch_idx):
        module.trainer.should_stop = batch_idx == 1
        return "learn"

    module, own = Module(make_network(), act), rule.clone()
    with pytest.raises(ValueError, match="the experience is empty"):
        fit(own, module, accumulate_grad_batches=4, max_epochs=3, min_epochs=0)
    assert clean(module)
    # What was accumulated then does not come into the next experience.
    follower = UserModule(make_network())
    follower.body = module.body
    callback = Metaplasticity(own, network="body")
    trainer(callbacks=[callback], max_epochs=1, limit_train_batches=1).fit(follower, loader())
    assert own._samples == 4

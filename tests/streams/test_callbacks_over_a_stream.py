"""Callbacks that remember something do so within an experience: a stream is as many fits with callbacks of their own."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as library
from torch import nn
from torch.nn import functional as F

from lit_meta import BGD, EWC, SI, Metaplasticity, MetaplasticModule, fit_stream, scenario
from lit_meta.data import ExperienceDataModule
from tests.rules.drivers import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


@pytest.fixture(scope="module")
def stream():
    return scenario("split-digits", experiences=5)


class Logs(MetaplasticModule):
    def __init__(self, rule=None):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        super().__init__(network, rule=rule, optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}})
        self.backbone = network[1]

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("epoch_loss", loss, on_step=False, on_epoch=True)
        return loss


class Epochs(L.Callback):
    def __init__(self):
        self.of_each = []

    def on_train_start(self, *_):
        self.of_each.append(0)

    def on_train_epoch_start(self, *_):
        self.of_each[-1] += 1


CALLBACKS = {
    "early stopping": lambda: library.EarlyStopping(
        "epoch_loss", patience=2, min_delta=0.1, check_on_train_epoch_end=True
    ),
    "swa": lambda: library.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=0.5),
    "ema": lambda: library.EMAWeightAveraging(decay=0.9),
    "finetuning": lambda: library.BackboneFinetuning(unfreeze_backbone_at_epoch=2),
    "accumulation": lambda: library.GradientAccumulationScheduler({0: 3, 2: 1}),
}


@pytest.mark.parametrize("name", [n for n in CALLBACKS if n != "ema" or hasattr(library, "EMAWeightAveraging")])
def test_a_stream_is_as_many_fits_with_callbacks_of_their_own(name, stream):
    epochs, module = Epochs(), Logs(EWC(strength=5.0))
    fit_stream(module, stream, max_epochs=6, accelerator="cpu", callbacks=[epochs, CALLBACKS[name]()])
    expected_epochs, expected = Epochs(), Logs(EWC(strength=5.0))
    for index, experience in enumerate(stream.train_stream):
        data = ExperienceDataModule(experience, stream.test_stream, batch_size=128, seed=0)
        torch.manual_seed(index)
        trainer(max_epochs=6, callbacks=[expected_epochs, CALLBACKS[name]()]).fit(expected, datamodule=data)
    assert epochs.of_each == expected_epochs.of_each
    for got, right in zip(module.network.parameters(), expected.network.parameters(), strict=True):
        assert torch.equal(got, right)
    assert module.plasticity.session.experiences == 5


def test_the_best_checkpoint_is_that_of_each_experience(stream, tmp_path):
    saver = library.ModelCheckpoint(
        tmp_path, monitor="epoch_loss", save_on_train_epoch_end=True, filename="{step}", save_last=True
    )
    paths = []
    fit_stream(
        Logs(EWC()),
        stream,
        max_epochs=4,
        batch_size=64,
        accelerator="cpu",
        callbacks=[saver],
        enable_checkpointing=True,
        on_experience=lambda *_: paths.append((saver.best_model_path, len(saver.best_k_models))),
    )
    batches = [-(-len(e.dataset) // 64) * 4 for e in stream.train_stream]
    ends = [sum(batches[: k + 1]) for k in range(5)]
    steps = [int(path.rpartition("step=")[2].removesuffix(".ckpt")) for path, _ in paths]
    assert all(end - count < step <= end for step, end, count in zip(steps, ends, batches, strict=True))
    assert all(kept == 1 for _, kept in paths)
    last = torch.load(saver.last_model_path, weights_only=False)
    (state,) = [s for key, s in last["callbacks"].items() if "Metaplasticity" in key]
    assert (state["experiences"], state["in_experience"]) == (5, False)


def test_a_callback_of_the_users_own_keeps_what_it_has_gathered(stream):
    class Counts(library.EarlyStopping):
        def __init__(self):
            super().__init__("epoch_loss", check_on_train_epoch_end=True)
            self.fits = 0

        def on_train_start(self, *_):
            self.fits += 1

    own = Counts()
    fit_stream(Logs(), stream, accelerator="cpu", callbacks=[own])
    assert own.fits == 5


def test_a_module_that_cuts_epochs_short_goes_on(stream):
    class Cuts(Logs):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    result = fit_stream(Cuts(BGD()), stream, max_epochs=2, batch_size=32, accelerator="cpu")
    assert result.cost["steps"] == 5 * 2 * 2


def test_manual_optimization_with_two_optimizers_takes_the_steps_it_takes(stream):
    class Two(Logs):
        def __init__(self, rule):
            super().__init__(rule)
            self.automatic_optimization = False

        def configure_optimizers(self):
            return [torch.optim.SGD(self.network[k].parameters(), lr=0.02) for k in (1, 3)]

        def training_step(self, batch, batch_idx):
            optimizers = self.optimizers()
            self.manual_backward(F.cross_entropy(self.network(batch[0]), batch[1]))
            for optimizer in optimizers if batch_idx % 2 else optimizers[:1]:
                optimizer.step()
                optimizer.zero_grad()

    result = fit_stream(Two(SI()), stream, batch_size=32, accelerator="cpu")
    batches = [-(-len(e.dataset) // 32) for e in stream.train_stream]
    assert result.cost["steps"] == sum(count + count // 2 for count in batches)


def test_a_rule_beside_the_modules_own_is_refused_before_anything_is_tested(stream):
    own = Metaplasticity(SI(), network="network")
    with pytest.raises(ValueError, match=r"\(SI\), and the module brings its own \(EWC\)"):
        fit_stream(Logs(EWC()), stream, accelerator="cpu", callbacks=[own])
    assert own.session is None


def test_a_module_that_makes_a_new_rule_for_every_fit_is_refused(stream):
    class Forgetful(Logs):
        def configure_callbacks(self):
            return [Metaplasticity(EWC(), network="network")]

    with pytest.raises(ValueError, match="would forget all previous experiences"):
        fit_stream(Forgetful(), stream, accelerator="cpu")

"""The checkpoint of a finished task holds the consolidated memory, and whoever loads it gets the memory or is told."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import EWC, SI, Metaplasticity, MetaplasticModule, RecursiveReadout
from tests.rules.drivers import UserModule, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


@pytest.fixture
def tasks(two_experiences):
    return [DataLoader(TensorDataset(x, y), batch_size=9) for x, y in two_experiences]


def memory(path):
    (state,) = [s for key, s in torch.load(path, weights_only=False)["callbacks"].items() if "Metaplasticity" in key]
    return state


class Validates(UserModule):
    def configure_optimizers(self):
        # Without momentum, which Lightning would carry over to the second task.
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def validation_step(self, batch, batch_idx):
        self.log("score", float(self.current_epoch))


SAVERS = {
    "last": {"save_last": True},
    "link": {"save_last": "link"},
    "last, every second epoch": {"save_last": True, "every_n_epochs": 2},
    "last, every third step": {"save_last": True, "every_n_train_steps": 3},
    "best": {"monitor": "score", "mode": "max"},
    "best and last": {"monitor": "score", "mode": "max", "save_last": True, "save_top_k": 2},
}


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("make", (EWC, SI), ids=("ewc", "si"))
def test_the_last_checkpoint_of_a_task_is_finished_and_protects_the_next(make, saver, make_network, tasks, tmp_path):
    rule, keeper = make(), ModelCheckpoint(tmp_path, **SAVERS[saver])
    module = Validates(make_network())
    first = trainer(callbacks=[Metaplasticity(rule, network="body"), keeper], enable_checkpointing=True, max_epochs=3)
    first.fit(module, *tasks[:1], tasks[0])
    path = keeper.best_model_path if saver == "best" else keeper.last_model_path
    state = memory(path)
    assert state["experiences"] == 1
    assert not state["in_experience"]
    weights = torch.load(path, weights_only=False)["state_dict"]
    for name, tensor in rule.state["importance"].items():
        assert torch.equal(state["rules"][0]["state"][f"importance/{name}"], tensor)
        assert torch.equal(weights[f"body.{name}"], rule.state["anchor"][name])

    protected = []

    class Look(L.Callback):
        def on_train_batch_start(self, fitted, module, batch, batch_idx):
            protected.append("importance" in fresh.state)

    fresh = make()
    second = trainer(callbacks=[Metaplasticity(fresh, network="body"), Look()], max_epochs=5)
    second.fit(Validates(make_network(1)), tasks[1], ckpt_path=path)
    assert len(protected) == 2 * 4
    assert all(protected)
    # As if the first module had simply gone on.
    trainer(callbacks=[Metaplasticity(rule, network="body")], max_epochs=2).fit(module, tasks[1])
    for name, tensor in rule.state["anchor"].items():
        torch.testing.assert_close(fresh.state["anchor"][name], tensor, rtol=0, atol=0)


def test_earlier_checkpoints_stay_inside_the_experience(make_network, tasks, tmp_path):
    keeper = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    callbacks = [Metaplasticity(EWC(), network="body"), keeper]
    trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=3).fit(UserModule(make_network()), tasks[0])
    inside = [memory(tmp_path / f"epoch={k}.ckpt")["in_experience"] for k in range(3)]
    assert inside == [True, True, False]


def test_the_last_checkpoint_holds_averaged_weights_where_they_stay(make_network, tasks, tmp_path):
    rule, keeper = EWC(), ModelCheckpoint(tmp_path, save_last=True)
    module = UserModule(make_network())
    averaging = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
    callbacks = [Metaplasticity(rule, network="body"), averaging, keeper]
    trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=3).fit(module, tasks[0])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    for name, parameter in module.body.named_parameters():
        assert torch.equal(saved[f"body.{name}"], parameter)
        assert torch.equal(rule.state["anchor"][name], parameter)


@pytest.mark.parametrize("make", (EWC, SI, RecursiveReadout), ids=("ewc", "si", "readout"))
def test_load_from_checkpoint_brings_the_memory(make, make_network, tasks, tmp_path):
    module = MetaplasticModule(make_network(), rule=make())
    fitted = trainer()
    fitted.fit(module, tasks[0])
    fitted.save_checkpoint(tmp_path / "task.ckpt")
    loaded = MetaplasticModule.load_from_checkpoint(tmp_path / "task.ckpt", network=make_network(1), rule=make())
    was, now = (m.plasticity.rules[0].state.state_dict() for m in (module, loaded))
    assert was.keys() == now.keys()
    assert all(torch.equal(was[key], now[key]) for key in was)
    for one in (module, loaded):
        trainer().fit(one, tasks[1])
    for a, b in zip(module.network.parameters(), loaded.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert loaded.plasticity.session.experiences == 2


@pytest.mark.parametrize("rule", (None, SI()), ids=("none", "another"))
def test_load_from_checkpoint_says_what_memory_it_leaves_behind(rule, make_network, tasks, tmp_path):
    fitted = trainer()
    fitted.fit(MetaplasticModule(make_network(), rule=EWC()), tasks[0])
    fitted.save_checkpoint(tmp_path / "task.ckpt")
    with pytest.warns(UserWarning, match="holds the memory of EWC, which is left behind"):
        MetaplasticModule.load_from_checkpoint(tmp_path / "task.ckpt", network=make_network(), rule=rule)


def test_a_checkpoint_without_a_rule_has_nothing_to_bring(make_network, tasks, tmp_path):
    fitted = trainer()
    fitted.fit(MetaplasticModule(make_network()), tasks[0])
    fitted.save_checkpoint(tmp_path / "task.ckpt")
    loaded = MetaplasticModule.load_from_checkpoint(tmp_path / "task.ckpt", network=make_network(), rule=EWC())
    assert "importance" not in loaded.plasticity.rules[0].state

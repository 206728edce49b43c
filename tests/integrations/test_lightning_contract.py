"""What `lit_meta.integrations._lightning` relies on in Lightning, so that a release that moves it fails here, by name."""

from __future__ import annotations

import contextlib
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as library
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lit_meta.integrations import _lightning
from tests.rules.drivers import trainer


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def loader():
    return DataLoader(TensorDataset(torch.ones(12, 4)), batch_size=4)


def test_callbacks_are_listed_in_the_order_in_which_they_run():
    first, second = L.Callback(), L.Callback()
    assert _lightning.callbacks_of(trainer(callbacks=[first, second])) == [first, second]


def test_state_keys_are_formed_by_lightning():
    callback = L.Callback()
    assert hasattr(callback, "_generate_state_key")
    assert _lightning.state_key(callback, rules=["EWC"]) == "Callback{'rules': ['EWC']}"


@pytest.mark.parametrize(("told", "misses"), ((True, False), (False, True)))
def test_ddp_tells_whether_it_expects_unused_parameters(told, misses):
    strategy = DDPStrategy(find_unused_parameters=told)
    assert strategy._ddp_kwargs == {"find_unused_parameters": told}
    assert _lightning.misses_unused_parameters(strategy) == misses
    assert not _lightning.misses_unused_parameters(trainer().strategy)


def test_epochs_are_counted_in_the_fit_loop_and_can_start_again(loader):
    module, fitted = Module(), trainer(max_epochs=2)
    fitted.fit(module, loader)
    assert _lightning.completed_epochs(fitted) == 2
    fitted.fit(module, loader)  # Lightning's own count is over all fits, so that nothing is left to do.
    assert fitted.global_step == 6
    _lightning.restart_epochs(fitted, 3)
    fitted.fit(module, loader)
    assert fitted.global_step == 6 + 9
    assert _lightning.completed_epochs(fitted) == 3


def test_a_loop_that_counts_elsewhere_is_named():
    other = trainer()
    del other.fit_loop.epoch_progress
    with pytest.raises(RuntimeError, match="counts epochs in a place that lit_meta does not know"):
        _lightning.restart_epochs(other, 1)


def test_an_interrupt_is_one_and_can_be_repeated(loader):
    class Interrupts(L.Callback):
        def on_train_batch_start(self, *args):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    fitted = trainer(callbacks=[Interrupts()])
    with pytest.raises(KeyboardInterrupt), _lightning.interrupts_as_usual(fitted):
        fitted.fit(Module(), loader)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_callback_can_log_once_attached(loader):
    class Logs(L.Callback):
        def on_train_batch_start(self, fitted, module, *args):
            _lightning.log(self, "a", torch.tensor(2.0))

    fitted = trainer(callbacks=[Logs()])
    fitted.fit(Module(), loader)
    assert float(fitted.callback_metrics["a"]) == 2.0
    assert not _lightning.logs_this_step(fitted)  # There is no logger.


def test_fabric_gives_back_what_it_has_wrapped(loader):
    fabric = L.Fabric(accelerator="cpu", devices=1)
    network = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    module, wrapped = fabric.setup(network, optimizer)
    assert module is not network
    assert _lightning.fabric_network(module) is network
    assert _lightning.fabric_optimizer(wrapped) is optimizer
    assert _lightning.fabric_loader(fabric.setup_dataloaders(loader)).dataset is loader.dataset
    for own in (network, optimizer, loader):
        assert _lightning.fabric_network(own) is own
        assert _lightning.fabric_optimizer(own) is own
        assert _lightning.fabric_loader(own) is own


def test_training_loaders_are_shown_before_they_are_read_and_known_while_they_are():
    shown, known = [], []
    train, validate = (DataLoader(TensorDataset(torch.ones(12, 4)), batch_size=4) for _ in range(2))

    class Watch(L.Callback):
        def setup(self, trainer, pl_module, stage):
            self.end = _lightning.watch_loaders(trainer, lambda loader: shown.append((loader, loader._iterator)))

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            known.append(_lightning.training_loaders(trainer))
            assert not _lightning.resumed_inside_epoch(trainer)

        def on_train_end(self, trainer, pl_module):
            self.end()
            assert "process_dataloader" not in vars(trainer.strategy)

    class Validates(Module):
        def validation_step(self, batch, batch_idx):
            pass

    run = trainer(callbacks=[Watch()], max_epochs=1, limit_train_batches=2)
    with pytest.raises(RuntimeError, match="not read its training data"):
        _lightning.training_loaders(run)
    run.fit(Validates(), train, validate)
    assert shown == [(train, None)]
    assert known[0].flattened == [train]
    assert known[0].limits == [2]


def test_a_batch_goes_through_the_conversion_and_the_hooks_of_its_transfer():
    order = []

    class Hooks(Module):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            order.append(("before", batch[0].dtype))
            return batch

        def on_after_batch_transfer(self, batch, dataloader_idx):
            order.append(("after", batch[0].dtype))
            return batch

        def on_train_end(self):
            order.clear()
            batch = _lightning.through_transfer(self.trainer, self, [torch.ones(2, 4)])
            assert batch[0].dtype == torch.float64

    loader = DataLoader(TensorDataset(torch.ones(12, 4)), batch_size=4)
    trainer(max_epochs=1, precision="64-true").fit(Hooks(), loader)
    assert order == [("before", torch.float64), ("after", torch.float64)]


def test_loaders_are_put_together_in_the_mode_of_the_fit():
    from lightning.pytorch.utilities import CombinedLoader

    combined = CombinedLoader({"a": [1, 2, 3], "b": [4]}, "max_size_cycle")
    batches = list(_lightning.recombined(combined, [[5, 6], [7]]))
    assert batches == [{"a": 5, "b": 7}, {"a": 6, "b": 7}]


def test_a_callback_is_told_by_its_class_and_those_above_it():
    class Own(library.EarlyStopping):
        pass

    class EarlyStopping(L.Callback):
        """Has the name only."""

    assert _lightning.is_a(Own("loss"), "EarlyStopping")
    assert not _lightning.is_a(EarlyStopping(), "EarlyStopping")
    assert not _lightning.is_a(Own("loss"), "ModelCheckpoint")


REMEMBERING = {
    "EarlyStopping": lambda: library.EarlyStopping("loss"),
    "ModelCheckpoint": library.ModelCheckpoint,
    "StochasticWeightAveraging": lambda: library.StochasticWeightAveraging(swa_lrs=0.1),
    "WeightAveraging": lambda: library.WeightAveraging(),
    "BaseFinetuning": library.BaseFinetuning,
    "BackboneFinetuning": library.BackboneFinetuning,
}


@pytest.mark.parametrize("name", _lightning._MEMORY)
def test_callbacks_remember_a_fit_in_the_attributes_that_are_put_back(name):
    if not hasattr(library, name):
        pytest.skip(f"this release has no {name}")
    callback = REMEMBERING[name]()
    memory = _lightning.memory_of(callback)
    missing = set(_lightning._MEMORY[name]) - memory.keys()
    assert not missing, f"lightning {L.__version__} keeps {', '.join(sorted(missing))} of {name} in another place"
    for attribute in memory:
        setattr(callback, attribute, "changed")
    _lightning.restore_memory(callback, memory)
    assert str(_lightning.memory_of(callback)) == str(memory)


def test_model_callbacks_take_the_place_of_a_trainers_own_of_their_type(loader):
    """Why a rule beside one that the module brings is refused."""

    class Brings(Module):
        def configure_callbacks(self):
            return [library.LambdaCallback()]

    own = library.LambdaCallback(on_train_start=lambda *_: pytest.fail("it was called"))
    fitted = trainer(callbacks=[own])
    fitted.fit(Brings(), loader)
    assert own not in _lightning.callbacks_of(fitted)


def test_a_module_knows_its_trainer_when_it_is_asked_for_callbacks(loader):
    known = []

    class Asks(Module):
        def configure_callbacks(self):
            known.append(_lightning.trainer_of(self))
            return []

    module, fitted = Asks(), trainer()
    module.configure_callbacks()
    fitted.fit(module, loader)
    assert known == [None, fitted]


def test_callbacks_can_be_put_into_another_order_before_a_fit(loader):
    order = []

    class Tells(L.Callback):
        def on_train_end(self, *_):
            order.append("rule")

        def setup(self, fitted, *_, **__):
            _lightning.run_after_averaging(fitted, self)

    class Averages(library.StochasticWeightAveraging):
        def on_train_end(self, *args):
            super().on_train_end(*args)
            order.append("average")

    trainer(callbacks=[Tells(), Averages(swa_lrs=0.1)]).fit(Module(), loader)
    assert order == ["average", "rule"]


def test_checkpoints_know_their_step_and_can_be_saved_again_when_training_ends(loader, tmp_path):
    class Saves(L.Callback):
        marked = False
        state_key = "Saves"

        def state_dict(self):
            return {"marked": self.marked}

        def on_train_end(self, fitted, module):
            self.marked = True
            _lightning.save_last_again(fitted)

    keeper = library.ModelCheckpoint(tmp_path, save_last=True, save_top_k=-1)
    trainer(callbacks=[Saves(), keeper], enable_checkpointing=True).fit(Module(), loader)
    assert sorted(map(_lightning._step_of, map(str, tmp_path.glob("*.ckpt")))) == [3, 6, 6]
    for path in tmp_path.glob("*.ckpt"):
        saved = torch.load(path, weights_only=False)
        assert saved["callbacks"]["Saves"]["marked"] == (saved["global_step"] == 6)
    assert set(_lightning.WEIGHTS) >= {"state_dict"}


@pytest.mark.parametrize("algorithm", ("norm", "value", None))
def test_clipping_by_value_is_told_from_clipping_by_norm(algorithm):
    fitted = trainer(gradient_clip_val=None if algorithm is None else 1.0, gradient_clip_algorithm=algorithm)
    assert _lightning.clips_by_value(fitted) == (algorithm == "value")


@pytest.mark.filterwarnings("ignore:.*not resumable.*")
def test_a_fit_pauses_between_batches_and_goes_on_from_what_it_dumps(loader):
    from lit_meta.integrations import _fit_state

    class Leave(BaseException):
        pass

    def fit(module, leave_at=None, content=None):
        states, fitted = [], trainer(max_epochs=2, callbacks=[])

        def pause():
            states.append(_fit_state.dumped(fitted))
            if len(states) == leave_at:
                raise Leave

        watched = {"go_on": lambda: None, "batches_end": lambda _: None, "pause": pause}
        with (
            contextlib.suppress(Leave),
            _fit_state.going_on_from(fitted, content) as path,
            _fit_state.pauses(fitted, **watched, is_stopping=lambda: False),
        ):
            fitted.fit(module, loader, ckpt_path=path)
        assert not {"on_run_start", "on_advance_end"} & {*vars(fitted.fit_loop), *vars(fitted.fit_loop.epoch_loop)}
        return states, fitted

    torch.manual_seed(0)
    module = Module()
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    states, fitted = fit(module)
    assert [state["global_step"] for state in states] == [
        1,
        2,
        3,
        4,
        5,
    ]  # After the last step there is nothing to go on to.
    for leave_at in range(1, 6):
        part = Module()
        part.load_state_dict(initial)
        content = fit(part, leave_at)[0][-1]
        _, again = fit(part, content=content)
        assert again.global_step == fitted.global_step == 6
        assert again.fit_loop.epoch_progress.current == fitted.fit_loop.epoch_progress.current
        assert torch.equal(part.layer.weight, module.layer.weight)

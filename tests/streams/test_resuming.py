"""A run folder is one run: others are refused, damage is seen, signals save, and a full disk loses nothing."""

from __future__ import annotations

import errno
import os
import signal
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric

from lit_meta import EWC, NACA, MetaplasticModule, fit_stream, scenario
from lit_meta.data.benchmark import BenchmarkView
from lit_meta.streams import checkpoints
from lit_meta.streams.interrupts import StreamInterrupted, StreamTerminated
from lit_meta.utils import files
from lit_meta.utils.locks import owned_folder


class Crash(Exception):
    pass


def stream(seed=3, experiences=2):
    whole = scenario("split-digits", experiences=5, seed=seed)
    trains, tests = list(whole.train_stream)[:experiences], list(whole.test_stream)[:experiences]
    return BenchmarkView("digits", trains, tests, form="class", classes=10)


def module(rule=None, *, width=8, seed=0, lr=0.1, loss="cross_entropy", optimizer="sgd", activation=nn.Tanh):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, width), activation(), nn.Linear(width, 10))
    rule = EWC(strength=5.0) if rule is None else rule
    return MetaplasticModule(network, rule=rule, loss=loss, optimizer={"name": optimizer, "lr": lr})


def fit(learner=None, benchmark=None, **options):
    learner = module() if learner is None else learner
    options = {"accelerator": "cpu", "batch_size": 64, "max_epochs": 2, "checkpoint_steps": 3, **options}
    return fit_stream(learner, stream() if benchmark is None else benchmark, **options), learner


def crash(index, row):
    raise Crash


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A run that has crashed after its first experience."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(Crash):
        fit(run_dir=folder, on_experience=crash)
    return folder


def contents(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Other(L.Callback):
    pass


OTHERS = {
    "batch_size is 64, and not 32": lambda: {"batch_size": 32},
    "max_epochs is 2, and not 3": lambda: {"max_epochs": 3},
    "seed is 0, and not 1": lambda: {"seed": 1},
    "protocol is 'standard', and not 'paper'": lambda: {"protocol": "paper"},
    r"optimizer\.0\.lr is 0\.1, and not 0\.2": lambda: {"learner": module(lr=0.2)},
    r"optimizer\.0\.class is .*SGD": lambda: {"learner": module(optimizer="adam")},
    r"rule\.0\.strength is 5\.0, and not 6\.0": lambda: {"learner": module(EWC(strength=6.0))},
    r"rule\.0\.class is .*EWC": lambda: {"learner": module(NACA())},
    "loss is .*cross_entropy": lambda: {"learner": module(loss="mse")},
    "initial weights are others": lambda: {"learner": module(seed=1)},
    r"network\.shapes\.network\.1\.weight": lambda: {"learner": module(width=9)},
    r"network\.layers\.\d+ is .*Tanh": lambda: {"learner": module(activation=nn.ReLU)},
    r"classes\.train\.\d\.\d is": lambda: {"benchmark": stream(seed=4)},
    r"only one of the two has classes\.train\.2": lambda: {"benchmark": stream(experiences=3)},
    "training samples are others": lambda: {"benchmark": changed()},
    r"only one of the two has callbacks\.0": lambda: {"callbacks": [Other()]},
    "only one of the two has trainer.gradient_clip_val": lambda: {"gradient_clip_val": 1.0},
}


def changed():
    """The same stream with one pixel changed."""
    whole = stream()
    view, dataset = whole.train_stream[1].tensor_view
    x = view.x.clone()
    x[int(view.index[0]), 0, 0, 0] += 1.0
    other = type(view)(x, view.y, view.index)
    whole.train_stream[1].tensor_view = (other, dataset)
    return whole


@pytest.mark.parametrize("message", OTHERS)
def test_a_run_with_anything_else_is_refused_and_what_differs_named(crashed, message):
    before = contents(crashed)
    with pytest.raises(ValueError, match=rf"holds another run: .*{message}"):
        fit(run_dir=crashed, resume=True, **OTHERS[message]())
    assert contents(crashed) == before


def test_a_used_folder_needs_a_word(crashed):
    before = contents(crashed)
    with pytest.raises(FileExistsError, match="resume=True, start afresh by overwrite=True"):
        fit(run_dir=crashed)
    for wrong in ({"resume": True, "overwrite": True}, {"checkpoint_minutes": 0}, {"checkpoint_steps": 0}):
        with pytest.raises(ValueError, match=r"give one of them|must be"):
            fit(run_dir=crashed, **wrong)
    with owned_folder(crashed), pytest.raises(RuntimeError, match="in use by this process already"):
        fit(run_dir=crashed, resume=True)
    assert contents(crashed) == before


def test_starting_afresh_with_the_word(tmp_path):
    with pytest.raises(Crash):
        fit(run_dir=tmp_path, on_experience=crash)
    result, _ = fit(module(lr=0.2), run_dir=tmp_path, overwrite=True)
    again, read = fit(module(lr=0.2), run_dir=tmp_path, resume=True)  # Complete: nothing is trained.
    assert torch.equal(again.accuracy_matrix, result.accuracy_matrix)
    assert again.cost["state_bytes"] == result.cost["state_bytes"] > 0
    assert read.plasticity.rules[0].state["importance"]


def test_a_large_state_is_written_from_where_it_lies(tmp_path, monkeypatch):
    written = []

    def tensor_file(tensors):
        written.extend(tensors.values())
        return whole_file(tensors)

    whole_file = checkpoints.tensor_file
    monkeypatch.setattr(checkpoints, "tensor_file", tensor_file)
    monkeypatch.setattr(checkpoints, "_MOST_COPIED", 0)
    learner = module()
    with pytest.raises(Crash):
        fit(learner, run_dir=tmp_path, on_experience=crash)
    assert learner.network[1].weight.data_ptr() in {tensor.data_ptr() for tensor in written}
    expected, whole = fit()
    result, resumed = fit(run_dir=tmp_path, resume=True)
    assert torch.equal(result.accuracy_matrix, expected.accuracy_matrix)
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_no_bit_flip_gives_another_result(crashed, tmp_path):
    import shutil

    expected, whole = fit()
    generator = torch.Generator().manual_seed(0)
    passed = 0
    for path in sorted(p.relative_to(crashed) for p in crashed.rglob("*") if p.is_file()):
        for _ in range(2):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            shutil.copytree(crashed, tmp_path / "run")
            flipped = bytearray((crashed / path).read_bytes())
            position = int(torch.randint(len(flipped), (), generator=generator))
            flipped[position] ^= 1 << int(torch.randint(8, (), generator=generator))
            (tmp_path / "run" / path).write_bytes(flipped)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result, learner = fit(run_dir=tmp_path / "run", resume=True)
            passed += any("going on from" in str(w.message) for w in caught)
            assert torch.equal(result.accuracy_matrix, expected.accuracy_matrix)
            for one, two in zip(whole.parameters(), learner.parameters(), strict=True):
                assert torch.equal(one, two)
    assert passed == 2 * 3  # Those of the newest checkpoint; the other one is not even read.


def test_where_no_checkpoint_is_whole_nothing_starts_afresh_in_silence(crashed, tmp_path):
    import shutil

    shutil.copytree(crashed, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be used"):
        fit(run_dir=tmp_path / "run", resume=True)


def test_numbers_that_are_none_and_other_formats_are_passed_over(crashed, tmp_path):
    import json
    import shutil

    from safetensors.torch import load, save

    shutil.copytree(crashed, tmp_path / "run")
    for folder, change in zip(sorted((tmp_path / "run" / "checkpoints").iterdir()), ("nan", "format"), strict=True):
        content = {name: (folder / name).read_bytes() for name in ("state.json", "state.safetensors")}
        if change == "nan":  # Whoever writes one writes digests too.
            tensors = load(content["state.safetensors"])
            tensors["/host/state_dict/network.1.weight"][0, 0] = float("nan")
            content["state.safetensors"] = save(tensors)
        else:
            content["state.json"] = json.dumps({**json.loads(content["state.json"]), "format": 99}).encode()
        files.write_folder(folder, content)
    with pytest.raises(ValueError, match=r"(?s)its format is 99.*holds .*, which is not a number"):
        fit(run_dir=tmp_path / "run", resume=True)


@pytest.mark.parametrize("failing", (errno.ENOSPC, errno.EROFS))
def test_a_full_disk_or_a_read_only_one_leaves_the_former_checkpoint(failing, tmp_path, monkeypatch):
    write, count = files._write_to_disk, 0

    def full(path, content):
        nonlocal count
        count += 1
        if count > 7:  # In the middle of the third checkpoint.
            path.touch()
            raise OSError(failing, os.strerror(failing))
        return write(path, content)

    monkeypatch.setattr(files, "_write_to_disk", full)
    with pytest.raises(OSError, match=os.strerror(failing)) as caught:
        fit(run_dir=tmp_path)
    assert Path(caught.value.filename).parent == tmp_path / "checkpoints"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    monkeypatch.undo()
    resumed, _ = fit(run_dir=tmp_path, resume=True)
    assert torch.equal(resumed.accuracy_matrix, fit()[0].accuracy_matrix)


class Signals(L.Callback):
    """Sends this process a signal in the 12th training step."""

    def __init__(self, number):
        self._number, self._steps = number, 0

    def on_train_batch_end(self, *others):
        self._steps += 1
        if self._steps == 12:
            signal.raise_signal(self._number)


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    (("SIGINT", StreamInterrupted, None), ("SIGTERM", StreamTerminated, 143), ("SIGHUP", StreamTerminated, 129)),
)
def test_a_signal_saves_says_one_line_and_is_no_ordinary_exception(name, kind, status, tmp_path, capsys):
    number = getattr(signal, name)
    # A job in the background of a shell starts with interrupts ignored.
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    former = signal.signal(number, usual)
    try:
        with pytest.raises(kind) as caught:
            fit(run_dir=tmp_path, checkpoint_steps=None, callbacks=[Signals(number)])
        assert not isinstance(caught.value, Exception)  # A script that catches exceptions does not run on.
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, former)
    assert getattr(caught.value, "code", None) == status
    assert capsys.readouterr().err.splitlines() == [
        f"{name}: the stream ended after 2 steps of experience 2; it is saved in {tmp_path}, to be resumed from there"
    ]
    resumed, _ = fit(run_dir=tmp_path, resume=True, callbacks=[Signals(0)])
    assert torch.equal(resumed.accuracy_matrix, fit()[0].accuracy_matrix)


class Logged(MetaplasticModule):
    """Logs values and a metric in some of the batches of an epoch, and each in its own way."""

    def __init__(self, network):
        super().__init__(network, rule=EWC())
        self.mean = MeanMetric()

    def on_train_epoch_start(self):
        self.log("started", 1.0 + self.current_epoch)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx < 2:
            self.log("some", loss, on_step=True, on_epoch=True)
            self.mean.update(loss.detach())
            self.log("metric", self.mean, on_step=False, on_epoch=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("all", loss, on_step=False, on_epoch=True)
        return loss


class Watch(L.Callback):
    """Notes what callbacks are shown, and ends the process, as it were, after some steps."""

    def __init__(self, steps=None):
        self._steps, self.shown, self.starts = steps, [], []

    def on_train_batch_start(self, trainer, *others):
        self.starts.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    def on_train_batch_end(self, trainer, *others):
        if trainer.global_step == self._steps:
            raise Crash

    def on_train_epoch_end(self, trainer, *others):
        self.shown.append({k: float(v) for k, v in trainer.callback_metrics.items()})


@pytest.mark.parametrize("steps", range(2, 11))
def test_metrics_of_an_epoch_do_not_depend_on_where_it_was_interrupted(steps, tmp_path):
    options = {"batch_size": 64, "checkpoint_steps": 1}
    whole, watch = Watch(), Watch()
    fit(Logged(module().network), callbacks=[whole], **options)
    with pytest.raises(Crash):
        fit(Logged(module().network), callbacks=[Watch(steps)], run_dir=tmp_path, **options)
    fit(Logged(module().network), callbacks=[watch], run_dir=tmp_path, resume=True, **options)
    assert {"started", "some", "some_epoch", "metric", "largest", "all"} <= whole.shown[-1].keys()
    assert watch.shown == whole.shown[-len(watch.shown) :]
    assert len(watch.shown) == 4 - (steps - 1) // 5
    assert watch.starts == whole.starts[-len(watch.starts) :]


def test_without_a_folder_a_stream_that_is_terminated_says_what_is_lost(capsys):
    with pytest.raises(SystemExit) as caught:
        fit(callbacks=[Signals(signal.SIGTERM)])
    assert caught.value.code == 143
    assert "since its last checkpoint is lost" in capsys.readouterr().err


def test_state_that_cannot_be_saved_is_told_and_the_stream_goes_on(tmp_path):
    class Odd(torch.optim.lr_scheduler.StepLR):
        def state_dict(self):
            return {"odd": object()}

    class Scheduled(MetaplasticModule):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [Odd(optimizer, 1)]

    learner = module()
    scheduled = Scheduled(learner.network, rule=EWC())
    with pytest.warns(
        UserWarning, match="no checkpoints inside experiences, but after each of them: .*odd is a object"
    ):
        fit(scheduled, run_dir=tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2

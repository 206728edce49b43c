"""An experience ends once it is learned, and what it took is told."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import StopAtAccuracy
from lit_meta.cli import main
from lit_meta.data import experience_tensors
from lit_meta.evaluation.accuracy import accuracy_of
from lit_meta.networks import build_network


def module() -> MetaplasticModule:
    network = build_network("mlp", inputs=64, hidden=[10], classes=10, activation="relu", output="identity", seed=0)
    return MetaplasticModule(network)


def test_an_experience_ends_after_the_first_epoch_that_reaches_the_accuracy() -> None:
    benchmark = scenario("split-digits", experiences=5, seed=1)
    stop = StopAtAccuracy(0.9)
    found = fit_stream(module(), benchmark, max_epochs=6, batch_size=32, callbacks=[stop], accelerator="cpu")
    assert len(stop.epochs) == 5
    assert 1 < stop.epochs[0] < 6
    sizes = [len(experience.dataset) for experience in benchmark.train_stream]
    assert found.cost["samples"] == sum(epochs * size for epochs, size in zip(stop.epochs, sizes, strict=True))

    # The first experience by hand: as many epochs as were told reach the accuracy, one fewer does not.
    samples = experience_tensors(benchmark.train_stream[0])
    reached = []
    for epochs in (stop.epochs[0] - 1, stop.epochs[0]):
        learner = module()
        if epochs:
            one = scenario("split-digits", experiences=5, seed=1)
            one.train_stream = list(one.train_stream)[:1]
            fit_stream(learner, one, max_epochs=epochs, batch_size=32, accelerator="cpu")
        reached.append(float(accuracy_of(learner, [samples])[0]))
    assert reached[0] < 0.9 <= reached[1]


def test_an_accuracy_that_is_never_reached_changes_nothing() -> None:
    benchmark = scenario("split-digits", experiences=5, seed=1)
    plain, watched = module(), module()
    expected = fit_stream(plain, benchmark, max_epochs=2, batch_size=200, accelerator="cpu")
    stop = StopAtAccuracy(1.0)
    found = fit_stream(watched, benchmark, max_epochs=2, batch_size=200, callbacks=[stop], accelerator="cpu")
    assert stop.epochs == [2] * 5
    assert torch.equal(found.accuracy_matrix, expected.accuracy_matrix)
    assert found.cost["samples"] == expected.cost["samples"]


@pytest.mark.parametrize("accuracy", (0.0, 1.1, float("nan")))
def test_an_accuracy_out_of_range_is_refused(accuracy: float) -> None:
    with pytest.raises(ValueError, match="accuracy"):
        StopAtAccuracy(accuracy)


def test_a_trainer_without_the_experience_is_refused() -> None:
    data = DataLoader(TensorDataset(torch.rand(8, 64), torch.arange(8)), batch_size=4)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[StopAtAccuracy(0.9)], accelerator="cpu", logger=False, enable_checkpointing=False
    )
    with pytest.raises(TypeError, match="ExperienceDataModule"):
        trainer.fit(module(), data)


def test_the_command_takes_it_and_tells_it(tmp_path: Path) -> None:
    command = ["run", "mlp.naca_split-digits", "--run_dir", str(tmp_path / "run"), "--learners", "rule"]
    options = ["--stop_at_accuracy", "0.5", "--json", str(tmp_path / "out.json"), "--set", "seeds=[0]", "max_epochs=3"]
    assert main([*command, *options]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert "--stop_at_accuracy 0.5" in report["command"]
    assert report["rule"]["cost"]["samples"] < 3 * 1437

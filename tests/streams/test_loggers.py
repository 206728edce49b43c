"""Loggers of Lightning are told the accuracy along the stream (W&B and MLflow: tests/interop); its progress bars show it."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_meta import MetaplasticModule, StreamResult, fit_stream
from lit_meta.data import tensor_benchmark
from lit_meta.networks import build_network


def stream(**options: object) -> StreamResult:
    x, y = torch.rand(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4
    parts = [(x[y // 2 == i], y[y // 2 == i]) for i in range(2)]
    module = MetaplasticModule(build_network("mlp", inputs=6, hidden=[5], classes=4, output="identity", seed=0))
    return fit_stream(module, tensor_benchmark(parts, parts), accelerator="cpu", batch_size=6, **options)


def expected(result: StreamResult) -> list[float]:
    return [float(row.mean()) for row in result.accuracy_matrix]


def test_csv(tmp_path: Path) -> None:
    result = stream(logger=CSVLogger(tmp_path, name="", version=""))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["stream/accuracy"]]
    assert [float(row["stream/accuracy"]) for row in rows] == pytest.approx(expected(result), abs=1e-6)
    assert [int(row["step"]) for row in rows] == [2, 4]
    assert float(rows[0]["stream/accuracy_seen"]) == pytest.approx(float(result.accuracy_matrix[0, 0]), abs=1e-6)
    for i in range(2):
        assert float(rows[1][f"stream/accuracy_experience_{i + 1}"]) == pytest.approx(
            float(result.accuracy_matrix[1, i])
        )


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = stream(logger=TensorBoardLogger(tmp_path, name="", version=""))
    seen: dict[int, float] = {}
    for file in sorted(tmp_path.glob("events.*")):
        events = EventAccumulator(str(file)).Reload()
        if "stream/accuracy" in events.Tags()["scalars"]:
            seen |= {event.step: event.value for event in events.Scalars("stream/accuracy")}
    assert [seen[step] for step in (2, 4)] == pytest.approx(expected(result), abs=1e-6)


@pytest.mark.parametrize("bar", (RichProgressBar, TQDMProgressBar))
def test_progress_bars_show_every_experience(bar, capsys) -> None:
    # Warnings are errors here: none of Lightning's own is repeated at every experience.
    epochs: list[int] = []

    class Counting(bar):
        def on_train_epoch_start(self, *arguments: object) -> None:
            epochs.append(1)
            super().on_train_epoch_start(*arguments)

    result = stream(callbacks=[Counting()], enable_progress_bar=True, max_epochs=3)
    assert len(epochs) == 6
    assert result.accuracy_matrix.shape == (2, 2)


def test_a_callback_of_ones_own_reads_each_loss_and_nobody_else_pays_for_it(monkeypatch) -> None:
    class Reads(L.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            self.losses.append(float(trainer.callback_metrics["loss"]))

    reader = Reads()
    stream(callbacks=[reader])
    assert len(reader.losses) == 4
    assert min(reader.losses) > 0.0
    logged: list[str] = []
    monkeypatch.setattr(MetaplasticModule, "log", lambda self, name, *args, **options: logged.append(name))
    stream()
    assert logged == []

"""Loggers that need libraries of their own: MLflow, and W&B without a network."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

from tests.streams.test_loggers import expected, stream


def test_mlflow(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = MLFlowLogger(
            "streams", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path)
        )
        result = stream(logger=logger)
        history = logger.experiment.get_metric_history(logger.run_id, "stream/accuracy")
    assert [entry.value for entry in sorted(history, key=lambda entry: entry.step)] == pytest.approx(expected(result))


def test_wandb_offline(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = WandbLogger(save_dir=tmp_path, offline=True, name="stream")
        result = stream(logger=logger)
        assert logger.experiment.summary["stream/accuracy"] == pytest.approx(expected(result)[-1], abs=1e-6)
        wandb.finish()
    assert list(tmp_path.glob("wandb/offline-run-*"))

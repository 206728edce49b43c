"""Run folders: one really run, with a spiking network, and ones whose numbers are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lit_meta.callbacks import ContinualEvaluation, WeightChange
from lit_meta.experiment import Experiment, run_experiment, write_config

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def spiking_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small spiking network that learned five experiences of two digits, two seeds, everything recorded."""
    folder = tmp_path_factory.mktemp("runs") / "lif"
    experiment = Experiment(
        name="lif-digits",
        scenario={"name": "split-digits", "experiences": 5},
        network={"name": "lif-mlp", "inputs": 64, "hidden": [20], "classes": 10, "steps": 6, "weight_gain": 3.0},
        rule={"name": "naca", "reduction": "sum"},
        loss="summed_mse",
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.002}},
        seeds=[0, 1],
    )

    def callbacks(learner: str, folder: Path, benchmark: object) -> list[object]:
        if learner == "joint":
            return []
        tests = benchmark.test_stream  # type: ignore[attr-defined]
        return [WeightChange(folder=folder), ContinualEvaluation(tests, every_n_steps=2, folder=folder)]

    run_experiment(experiment, folder, accelerator="cpu", command="lit-meta run lif", callbacks=callbacks)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run folder whose accuracy matrices are given, by learner one for each seed."""

    def make(
        matrices: dict[str, list[list[list[float]]]],
        *,
        name: str = "ewc-mlp-digits",
        folder: str = "run",
        **changes: object,
    ) -> Path:
        run_dir = tmp_path / folder
        seeds = list(range(len(next(iter(matrices.values())))))
        values = {
            "scenario": {"name": "split-digits", "experiences": 2},
            "network": {"name": "mlp", "inputs": 64, "hidden": [8], "classes": 10},
            "rule": {"name": "ewc", "strength": 3.0},
            **changes,
        }
        experiment = Experiment(name=name, seeds=seeds, **values)  # type: ignore[arg-type]
        write_config(experiment, run_dir, resume=False)
        metrics = {"name": name, "command": "lit-meta run it", "versions": {"torch": "0"}}
        for learner, found in matrices.items():
            metrics[learner] = {"accuracy_matrix": torch.tensor(found).mean(0).tolist()}
            for seed, matrix in enumerate(found):
                classes = [[(seed + i) % 2] for i in range(2)]
                cost = {"seconds": 1.0 + seed, "parameter_bytes": 2048, "state_bytes": 1024, "steps": 4, "samples": 9}
                path = run_dir / learner / f"seed-{seed}" / "metrics.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps({"accuracy_matrix": matrix, "cost": cost, "classes": classes}))
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        return run_dir

    return make

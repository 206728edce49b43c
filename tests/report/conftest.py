"""Run folders whose numbers are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lit_meta.experiments.run import Experiment
from lit_meta.experiments.run_folder import write_config

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run folder whose accuracy matrices are given, by learner one for each seed."""

    def make(
        matrices: dict[str, list[list[list[float]]]],
        *,
        name: str = "mlp.ewc_split-digits",
        folder: str = "run",
        cost: dict[str, float] | None = None,
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
        for learner, by_seed in matrices.items():
            metrics[learner] = {"accuracy_matrix": torch.tensor(by_seed).mean(0).tolist()}
            for seed, matrix in enumerate(by_seed):
                classes = [[(seed + i) % 2] for i in range(2)]
                spent = {"seconds": 1.0 + seed, "parameter_bytes": 2048, "state_bytes": 1024, "steps": 4, "samples": 9}
                spent |= cost or {}
                path = run_dir / learner / f"seed-{seed}" / "metrics.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps({"accuracy_matrix": matrix, "cost": spent, "classes": classes}))
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        return run_dir

    return make

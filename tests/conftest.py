"""What the tests share: a small network, a small stream, and rules as the registry's configs give them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
torch.set_num_threads(1)  # Tests run side by side; and one thread adds in one order.


@pytest.fixture
def data_root() -> Path:
    root = os.environ.get("LIT_META_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs data: set LIT_META_DATA to a folder with MNIST/raw and the other sets")
    return Path(root)


@pytest.fixture
def make_network():
    """A two-layer classifier of four classes on eight inputs, with the same weights every time."""

    def make(seed: int = 0) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))

    return make


@pytest.fixture
def two_experiences() -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels of two experiences of two classes each."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 36, 8, generator=generator)
    y = torch.stack([torch.randint(0, 2, (36,), generator=generator), torch.randint(2, 4, (36,), generator=generator)])
    return list(zip(x, y, strict=True))


@pytest.fixture(scope="session")
def spiking_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small spiking network that learned five experiences of two digits, two seeds, everything recorded."""
    from lit_meta.callbacks import ContinualEvaluation, WeightChange
    from lit_meta.experiments.run import Experiment, run_experiment

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

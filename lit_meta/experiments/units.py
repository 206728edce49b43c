"""One learner of an experiment with one seed: the part of a run that one process does."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import encode_numbered
from lit_meta.data.benchmark import Benchmark
from lit_meta.evaluation.accuracy import accuracy_by_batching
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.online import QUANTITIES, OnlineAccuracy, with_own
from lit_meta.experiments.parallel import side_by_side
from lit_meta.experiments.run_folder import SNAPSHOTS_FOLDER
from lit_meta.experiments.trial import MakeCallbacks, place_of
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.streams.fit import StreamResult
from lit_meta.utils.arguments import located
from lit_meta.utils.files import write_text
from lit_meta.utils.heap import release
from lit_meta.utils.io import save_json, save_tensors
from lit_meta.utils.modes import matmul_precision

OnExperience = Callable[[str, int, int, Tensor], None]

_SMALL = 512 << 10  # Bytes of a network.
_SNAPSHOTS_IN_ALL = 32 * _SMALL  # A stream of thousands of experiences writes no thousands of networks.
_PROGRESS = ".progress"
_SECONDS = 0.3  # Between two looks at what other processes have reported.


@dataclass(frozen=True)
class Outcome:
    """What a unit found.

    Attributes:
        result: of the stream.
        batching: the accuracy by batching; None where the experiment does not ask for it.
        online: accuracy before learning, dormant units and rank, by experience; None where nobody asks for them.
    """

    result: StreamResult
    batching: dict[str, float] | None
    online: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Unit:
    """One learner of an experiment with one seed, into its folder ``RUN_DIR/LEARNER/seed-SEED``.

    Attributes:
        experiment: the experiment.
        learner: of it.
        seed: of it.
        run_dir: of the whole experiment.
        resume: continue after the last checkpoint in the folder.
        accelerator: Lightning's name of the device.
        callbacks: builds the Trainer's callbacks, as in `run_experiment`.
    """

    experiment: Experiment
    learner: str
    seed: int
    run_dir: Path
    resume: bool = False
    accelerator: str = "auto"
    callbacks: MakeCallbacks | None = None

    @property
    def folder(self) -> Path:
        """Where its checkpoints and its result are."""
        return self.run_dir / self.learner / f"seed-{self.seed}"

    @property
    def _is_kept(self) -> bool:
        """Whether its network is the one that the run keeps."""
        return self.learner == "rule" and self.seed == self.experiment.seeds[0]

    def run(
        self, on_experience: Callable[[int, Tensor], None] | None = None, benchmark: Benchmark | None = None
    ) -> Outcome:
        """Runs it; ``benchmark`` is that of the seed, if the caller has it."""
        from lit_meta.data import experience_tensors
        from lit_meta.data.scenarios import scenario_for_seed
        from lit_meta.experiments.run import run_seed

        if benchmark is None:
            benchmark = scenario_for_seed(self.experiment.scenario, self.seed)
        callbacks = None if self.callbacks is None else partial(self.callbacks, self.learner, self.folder)
        own: list[OnlineAccuracy] = []
        if self.experiment.online and self.learner != "joint":
            own.append(OnlineAccuracy(benchmark.test_stream, folder=self.folder))
        result, module = run_seed(
            self.experiment,
            self.learner,
            self.seed,
            run_dir=self.folder,
            resume=self.resume,
            accelerator=self.accelerator,
            on_experience=on_experience,
            callbacks=with_own(own, callbacks),
            benchmark=benchmark,
            after_experience=partial(_keep_snapshot, self.run_dir) if self._is_kept else None,
        )
        online = None
        for record in own:
            if len(record.accuracy) < len(result.accuracy_matrix):
                record.load(len(result.accuracy_matrix))  # The run was complete, and nothing was trained.
            online = {quantity: list(getattr(record, quantity)) for quantity in QUANTITIES}
        save_json(self.folder / "metrics.json", result.to_dict())
        if self._is_kept:
            _keep_network(self.run_dir, module, result)
        if not self.experiment.batching:
            return Outcome(result, None, online)
        test = [experience_tensors(experience) for experience in benchmark.test_stream]
        with matmul_precision(self.experiment.matmul_precision):
            return Outcome(result, accuracy_by_batching(module.network, test, seed=self.seed), online)


def run_units(
    units: Sequence[Unit],
    *,
    jobs: int = 1,
    cluster: str | None = None,
    on_experience: Callable[[Unit, int, Tensor], None] | None = None,
    benchmarks: Mapping[int, Benchmark] | None = None,
) -> list[Outcome]:
    """Runs units of one or several experiments; see `lit_meta.experiments.parallel.side_by_side`.

    Args:
        units: what to run.
        jobs: how many at the same time.
        cluster: the address of a Dask scheduler, whose workers see the run folders under the same paths.
        on_experience: called in this process after each experience of each unit, whichever process it ran in.
        benchmarks: by seed, if the caller has them; for units that run in this process.

    Returns:
        The outcomes, in the order of the units.
    """
    if jobs == 1 and cluster is None:
        alone = []
        for unit in units:
            told = None if on_experience is None else partial(on_experience, unit)
            alone.append(unit.run(told, None if benchmarks is None else benchmarks[unit.seed]))
            release()
        return alone
    with _progress(units, on_experience):
        return side_by_side([partial(_run_elsewhere, unit) for unit in units], jobs=jobs, cluster=cluster)


def _run_elsewhere(unit: Unit) -> Outcome:
    with located(f"{place_of(unit.experiment, unit.learner)}seed {unit.seed}: "):
        return unit.run(_Report(_report_of(unit)))


def _report_of(unit: Unit) -> Path:
    return unit.run_dir / _PROGRESS / f"{unit.learner}-{unit.seed}"


@dataclass(frozen=True)
class _Report:
    """Tells another process, also on another machine, of each experience: a line in a file of the run folder."""

    path: Path

    def __call__(self, index: int, row: Tensor) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([index, row.tolist()]) + "\n")


@contextmanager
def _progress(units: Sequence[Unit], on_experience: Callable[[Unit, int, Tensor], None] | None) -> Iterator[None]:
    """Within the block, calls ``on_experience`` for every experience that other processes report."""
    folders = {unit.run_dir / _PROGRESS for unit in units}
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    read = dict.fromkeys(units_by_path := {_report_of(unit): unit for unit in units}, 0)
    over = threading.Event()

    def look() -> None:
        for path, unit in units_by_path.items():
            lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
            for line in lines[read[path] :]:
                if not line.endswith("\n"):
                    break
                read[path] += 1
                index, row = json.loads(line)
                if on_experience is not None:
                    on_experience(unit, index, torch.tensor(row))

    def watch() -> None:
        while not over.wait(_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _keep_snapshot(run_dir: Path, index: int, network: nn.Module) -> None:
    state = network.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size <= _SMALL and (index + 1) * size <= _SNAPSHOTS_IN_ALL:
        save_tensors(run_dir / SNAPSHOTS_FOLDER / f"{index:03}.safetensors", state)


def _keep_network(run_dir: Path, module: MetaplasticModule, result: StreamResult) -> None:
    save_tensors(run_dir / "model.safetensors", module.network.state_dict())
    rules = module.plasticity.rules if module.plasticity is not None else ()
    save_tensors(run_dir / "rule.safetensors", encode_numbered(rule.state.state_dict() for rule in rules))
    rows = [",".join(f"{v:.6f}" for v in row) for row in result.accuracy_matrix.tolist()]
    write_text(run_dir / "accuracy_matrix.csv", "\n".join(rows) + "\n")

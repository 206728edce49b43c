"""Reads a run folder: every learner, every seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_meta.callbacks.continual_evaluation import read_continual_evaluation
from lit_meta.callbacks.weight_change import read_weight_change
from lit_meta.experiments.run import Experiment
from lit_meta.functional import matrix
from lit_meta.functional.chance import chance_level, learned_little, never_learned
from lit_meta.functional.interval import t_interval
from lit_meta.functional.stability import stability_gap
from lit_meta.utils.io import load_json, load_yaml


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, with Student's 95 % interval.

    Attributes:
        mean: (...).
        low: of the interval, of the same shape.
        high: of the interval.
        seeds: number of values.
    """

    mean: Tensor
    low: Tensor
    high: Tensor
    seeds: int

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The estimate from one value per seed.

        Args:
            values: (seeds, ...).
        """
        low, high = t_interval(values)
        return cls(values.mean(0), low, high, len(values))


@dataclass(frozen=True)
class SeedRun:
    """One learner with one seed.

    Attributes:
        seed: of weights, class order and order of samples.
        folder: of this seed.
        matrix: (training experiences, test experiences).
        cost: as in `lit_meta.StreamResult`.
        classes: labels of each test experience; empty if they were not recorded.
    """

    seed: int
    folder: Path
    matrix: Tensor
    cost: dict[str, float]
    classes: list[list[int]]


@dataclass(frozen=True)
class LearnerRun:
    """One learner (``rule``, ``naive``, ``joint`` or a control) over all seeds."""

    name: str
    seeds: list[SeedRun]

    @property
    def matrices(self) -> Tensor:
        """(seeds, training experiences, test experiences)."""
        return torch.stack([seed.matrix for seed in self.seeds])

    @property
    def is_stream(self) -> bool:
        """Whether it learned one experience after another rather than all at once."""
        rows, columns = self.matrices.shape[1:]
        return rows == columns and rows > 1

    @property
    def accuracies(self) -> Tensor:
        """Average accuracy at the end, (seeds,)."""
        return self.matrices[:, -1].mean(1)

    @property
    def accuracy(self) -> Estimate:
        """Average accuracy at the end."""
        return Estimate.of(self.accuracies)

    @property
    def forgetting(self) -> Estimate | None:
        """Mean accuracy lost since each experience was learned; None if there is no stream."""
        if not self.is_stream:
            return None
        return Estimate.of(torch.stack([matrix.forgetting(accuracies) for accuracies in self.matrices]))

    @property
    def never_learned(self) -> Tensor | None:
        """Whether each experience was at chance right after it was learned, (experiences,); None if that is not known.

        Means over seeds are compared with chance: each seed has its own order of classes.
        """
        if not self.is_stream or not all(seed.classes for seed in self.seeds):
            return None
        chance = torch.stack([chance_level(seed.classes) for seed in self.seeds]).mean(0)
        return never_learned(self.matrices.mean(0).diagonal(), chance)

    @property
    def learned_little(self) -> bool:
        """Whether more than half of the experiences were never learned, so that forgetting says nothing."""
        never = self.never_learned
        return never is not None and learned_little(never)

    @property
    def anytime(self) -> Estimate | None:
        """Accuracy on the experiences seen so far, averaged over the stream; None if there is no stream."""
        if not self.is_stream:
            return None
        return Estimate.of(torch.stack([matrix.anytime_accuracy(accuracies) for accuracies in self.matrices]))

    @property
    def seen(self) -> Estimate:
        """Accuracy on the experiences seen so far, after each, (experiences,)."""
        lower = self.matrices.tril()
        return Estimate.of(lower.sum(2) / torch.arange(1, lower.shape[1] + 1))

    @property
    def gap(self) -> Estimate | None:
        """The stability gap; None if it was not recorded."""
        recorded = [read_continual_evaluation(seed.folder) for seed in self.seeds]
        traces = [
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))
            for _, rows in filter(None, recorded)
        ]
        if len(traces) < len(self.seeds):
            return None
        return Estimate.of(torch.stack([stability_gap(trace) for trace in traces]))

    def cost(self, key: str) -> float:
        """A cost, averaged over seeds."""
        return sum(seed.cost[key] for seed in self.seeds) / len(self.seeds)

    def changes(self) -> list[list[dict[str, dict[str, float]]]]:
        """The records of `lit_meta.callbacks.WeightChange`, for each seed that has them."""
        recorded = [read_weight_change(seed.folder) for seed in self.seeds]
        return [records for records, _ in filter(None, recorded)]


@dataclass(frozen=True)
class Run:
    """A finished run folder.

    Attributes:
        folder: its path.
        experiment: its resolved config.
        metrics: the content of its ``metrics.json``.
        learners: by name, the rule first and the joint bound last.
    """

    folder: Path
    experiment: Experiment
    metrics: dict[str, Any]
    learners: dict[str, LearnerRun]

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.name

    @property
    def streams(self) -> dict[str, LearnerRun]:
        """The learners that went through the stream."""
        return {name: learner for name, learner in self.learners.items() if learner.is_stream}

    @property
    def length(self) -> int:
        """Number of test experiences."""
        return next(iter(self.learners.values())).matrices.shape[2]


def read_run(folder: str | Path) -> Run:
    """Reads a folder that `lit_meta.experiments.run.run_experiment` wrote.

    Raises:
        FileNotFoundError: a file is missing: not a run folder, or an unfinished run.
        ValueError: a file has unexpected content.
    """
    path = Path(folder)
    for file in ("config.yaml", "metrics.json"):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path / file} is missing: a report needs a finished run of `lit-meta run`")
    try:
        experiment = Experiment.from_dict(load_yaml(path / "config.yaml"))
        metrics = load_json(path / "metrics.json")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable run folder: {error}") from None
    names = [name for name, entry in metrics.items() if isinstance(entry, dict) and "accuracy_matrix" in entry]
    if not names:
        raise ValueError(f"{path / 'metrics.json'} lists no learner")
    order = {"rule": 0, "naive": 2, "joint": 3}
    learners = {
        name: LearnerRun(name, [_read_seed(path / name / f"seed-{seed}", seed) for seed in experiment.seeds])
        for name in sorted(names, key=lambda name: order.get(name, 1))
    }
    return Run(path, experiment, metrics, learners)


def _read_seed(folder: Path, seed: int) -> SeedRun:
    path = folder / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run is not finished; continue it with lit-meta run --resume")
    try:
        metrics = load_json(path)
        accuracies = torch.tensor(metrics["accuracy_matrix"], dtype=torch.float64)
        return SeedRun(seed, folder, accuracies, metrics["cost"], metrics.get("classes", []))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the result of a stream: {error!r}") from None

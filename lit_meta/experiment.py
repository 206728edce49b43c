"""An experiment: a rule on a stream, over seeds, beside naive fine-tuning and the joint upper bound."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import nn

from lit_meta._names import unknown
from lit_meta._paths import configs_folder
from lit_meta.evaluation import PROTOCOLS, Protocol
from lit_meta.hosts.module import MetaplasticModule
from lit_meta.networks import build_network
from lit_meta.rules import Rule, build_rule
from lit_meta.rules.base import require_one_of
from lit_meta.saving import save_json, save_tensors
from lit_meta.stream import StreamResult, fit_stream

Learner = Literal["rule", "naive", "joint"]
LEARNERS: tuple[Learner, ...] = ("rule", "naive", "joint")


@dataclass
class Override:
    """Arguments of an `Experiment` that differ for one learner; None where they do not."""

    network: dict[str, Any] | None = None
    loss: str | None = None
    optimizer: dict[str, Any] | None = None
    max_epochs: int | None = None
    batch_size: int | None = None


@dataclass
class Experiment:
    """The whole description of an experiment; a YAML file in ``configs/experiment/`` holds one.

    Attributes:
        name: of the experiment, and of the zoo entry that comes of it.
        scenario: ``{"name": ..., "experiences": ...}``, the arguments of `lit_meta.scenario` without the seed.
        network: ``{"name": ..., ...}``, the arguments of `lit_meta.networks.build_network`.
        rule: ``{"name": ..., ...}``, the arguments of `lit_meta.rules.build_rule`; a list of them for several rules.
        loss: a loss of `MetaplasticModule`.
        optimizer: ``{"class_path": ..., "init_args": {...}}``.
        max_epochs: passes over each experience.
        batch_size: of training.
        protocol: of evaluation.
        seeds: of initial weights, class order and order of samples; one run each.
        overrides: by learner (``rule``, ``naive``, ``joint``), arguments above that differ for it, such as the epochs of the
            joint bound.
        note: what a reader of the results must know.
    """

    name: str
    scenario: dict[str, Any]
    network: dict[str, Any]
    rule: dict[str, Any] | list[dict[str, Any]] | None = None
    loss: str = "cross_entropy"
    optimizer: dict[str, Any] = field(
        default_factory=lambda: {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    )
    max_epochs: int = 1
    batch_size: int = 128
    protocol: Protocol = "standard"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    overrides: dict[str, Override] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        require_one_of("protocol", self.protocol, PROTOCOLS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be a list of different integers, got {self.seeds}")
        for learner in self.overrides:
            require_one_of("a learner in overrides", learner, LEARNERS)
        for part in ("scenario", "network"):
            if "name" not in getattr(self, part):
                raise ValueError(f"{part} needs a name, got {getattr(self, part)}")

    def for_learner(self, learner: Learner) -> Experiment:
        """The experiment with one learner's overrides put in place."""
        changes = asdict(self.overrides.get(learner, Override()))
        part = replace(self, overrides={}, **{key: value for key, value in changes.items() if value is not None})
        return part if learner == "rule" else replace(part, rule=None)

    def to_dict(self) -> dict[str, Any]:
        """The form that a YAML file has."""
        found = asdict(self)
        found["overrides"] = {
            learner: {key: value for key, value in changes.items() if value is not None}
            for learner, changes in found["overrides"].items()
        }
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """The experiment that `to_dict` describes."""
        overrides = {learner: Override(**changes) for learner, changes in values.get("overrides", {}).items()}
        return cls(**{**values, "overrides": overrides})


def build_rules(spec: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> Rule | list[Rule] | None:
    """Rules from their specifications, ``{"name": ..., hyperparameters...}``."""
    if spec is None:
        return None
    if isinstance(spec, Mapping):
        return build_rule(**spec)
    return [build_rule(**one) for one in spec]


def network_for_seed(spec: Mapping[str, Any], seed: int) -> nn.Module:
    """A network whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(**spec)


def build_module(experiment: Experiment, seed: int) -> MetaplasticModule:
    """The module of an experiment with fresh weights."""
    return MetaplasticModule(
        network_for_seed(experiment.network, seed),
        rule=build_rules(experiment.rule),
        loss=experiment.loss,
        optimizer=experiment.optimizer,
    )


def run_seed(
    experiment: Experiment,
    learner: Learner,
    seed: int,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    on_experience: Callable[[int, torch.Tensor], None] | None = None,
    callbacks: Callable[[Any], Sequence[L.Callback]] | None = None,
) -> tuple[StreamResult, MetaplasticModule]:
    """One learner of an experiment with one seed; ``callbacks`` makes the Trainer's from the benchmark."""
    from lit_meta.data import joint, scenario

    part = experiment.for_learner(learner)
    benchmark = scenario(**part.scenario, seed=seed)
    module = build_module(part, seed)
    result = fit_stream(
        module,
        joint(benchmark) if learner == "joint" else benchmark,
        max_epochs=part.max_epochs,
        batch_size=part.batch_size,
        seed=seed,
        protocol=part.protocol,
        accelerator=accelerator,
        run_dir=run_dir,
        resume=resume,
        on_experience=on_experience,
        callbacks=() if callbacks is None else callbacks(benchmark),
    )
    return result, module


def summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and standard deviation (of the sample, n - 1) of one number over seeds; None where it is not defined.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        {'mean': 2.0, 'sd': 1.0, 'values': [1.0, 2.0, 3.0]}
    """
    known = [v for v in values if v is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "sd": sd, "values": known}


def summarize(results: Sequence[StreamResult]) -> dict[str, Any]:
    """Results over seeds as plain numbers; the matrix is the mean over seeds."""
    quantities = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer")
    found: dict[str, Any] = {q: summary([getattr(r, q) for r in results]) for q in quantities}
    mean = torch.stack([r.accuracy_matrix for r in results]).mean(0)
    found["accuracy_matrix"] = [[round(v, 6) for v in row] for row in mean.tolist()]
    found["cost"] = {key: statistics.fmean(r.cost[key] for r in results) for key in results[0].cost}
    return found


def versions() -> dict[str, str]:
    """Versions of the libraries that a number depends on."""
    return {name: version(name) for name in ("lit-meta", "torch", "lightning", "avalanche-lib")}


def run_experiment(
    experiment: Experiment,
    run_dir: Path,
    *,
    learners: Sequence[Learner] = LEARNERS,
    resume: bool = False,
    accelerator: str = "auto",
    command: str = "",
    on_experience: Callable[[Learner, int, int, torch.Tensor], None] | None = None,
    callbacks: Callable[[Learner, Path, Any], Sequence[L.Callback]] | None = None,
) -> dict[str, Any]:
    """Runs every learner with every seed into a run folder.

    The folder holds ``config.yaml``, ``metrics.json``, ``accuracy_matrix.csv`` and, from the first seed, the network and
    the rules' memory. ``callbacks`` makes the callbacks of one learner and seed from the learner, the folder of the seed and
    the benchmark.

    Returns:
        The content of ``metrics.json``.

    Raises:
        FileExistsError: the folder holds another run and ``resume`` is not set.
    """
    write_config(experiment, run_dir, resume=resume)
    report: dict[str, Any] = {
        "name": experiment.name,
        "command": command,
        "note": experiment.note,
        "scenario": experiment.scenario,
        "protocol": experiment.protocol,
        "seeds": experiment.seeds,
        "versions": versions(),
    }
    for learner in learners:
        results = []
        for seed in experiment.seeds:
            folder = run_dir / learner / f"seed-{seed}"

            def progress(index: int, row: torch.Tensor, learner: Learner = learner, seed: int = seed) -> None:
                if on_experience is not None:
                    on_experience(learner, seed, index, row)

            result, module = run_seed(
                experiment,
                learner,
                seed,
                run_dir=folder,
                resume=resume,
                accelerator=accelerator,
                on_experience=progress,
                callbacks=None if callbacks is None else partial(callbacks, learner, folder),
            )
            save_json(folder / "metrics.json", result.to_dict())
            if learner == "rule" and seed == experiment.seeds[0]:
                _keep_network(run_dir, module, result)
            results.append(result)
        report[learner] = summarize(results)
    save_json(run_dir / "metrics.json", report)
    return report


def write_config(experiment: Experiment, run_dir: Path, *, resume: bool) -> None:
    """Writes the resolved config, or holds that a resumed run has the same."""
    import yaml

    path = run_dir / "config.yaml"
    text = yaml.safe_dump(experiment.to_dict(), sort_keys=False)
    if path.is_file():
        if not resume:
            raise FileExistsError(f"{run_dir} already holds a run: choose another run_dir, or go on with --resume")
        if path.read_text() != text:
            raise ValueError(f"{path} is of another experiment: a run can only be resumed with the same config")
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _keep_network(run_dir: Path, module: MetaplasticModule, result: StreamResult) -> None:
    save_tensors(run_dir / "model.safetensors", module.network.state_dict())
    rules = module.plasticity.rules if module.plasticity is not None else ()
    tensors = {f"{i}:{key}": t for i, rule in enumerate(rules) for key, t in rule.state.state_dict().items()}
    save_tensors(run_dir / "rule.safetensors", tensors)
    rows = [",".join(f"{v:.6f}" for v in row) for row in result.accuracy_matrix.tolist()]
    (run_dir / "accuracy_matrix.csv").write_text("\n".join(rows) + "\n")


def load_experiment(path_or_name: str, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment from a YAML file, or by its name in ``configs/experiment/``.

    Args:
        path_or_name: of the config.
        overrides: further arguments as on a command line, such as ``["--max_epochs=2", "--seeds=[0]"]``.

    Raises:
        FileNotFoundError: no such file.
        KeyError: no config of that name; the nearest are named.
        ValueError: the file does not describe an experiment.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        folder = configs_folder() / "experiment"
        path = folder / f"{path_or_name}.yaml"
        if not path.is_file():
            raise unknown("experiment", path_or_name, [p.stem for p in folder.glob("*.yaml")])
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment)
    parser.add_argument("--config", action="config")
    try:
        values = parser.parse_args([f"--config={path}", *overrides])
    except ArgumentError as error:
        raise ValueError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    values.pop("config", None)
    return Experiment.from_dict(values.as_dict())

"""Proof: an entry's accuracy, golden outputs, audit and continuation, measured again and held to its card."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lit_meta.data.sources.base import MissingDataError
from lit_meta.evaluation.accuracy import Protocol
from lit_meta.evaluation.accuracy import evaluate as evaluate_network
from lit_meta.evaluation.audit import audit
from lit_meta.experiments.config import Experiment
from lit_meta.functional import matrix
from lit_meta.utils.io import sha256
from lit_meta.utils.modes import matmul_precision
from lit_meta.utils.specs import label
from lit_meta.zoo.cards import card, read_card
from lit_meta.zoo.checks import read_tensors
from lit_meta.zoo.continuation import continue_learning
from lit_meta.zoo.entries import load
from lit_meta.zoo.golden import golden_problem
from lit_meta.zoo.layout import CONFIG, GOLDEN, SNAPSHOTS, Files, locate

TOLERANCE = 0.002  # Of an accuracy: one sample in five hundred, for another processor's rounding.
_CONTINUATION_TOLERANCE = 0.01  # After training, where rounding has had time to grow.
_AUDIT_SAMPLES = 500


@dataclass(frozen=True)
class Evaluation:
    """An entry, tested again.

    Attributes:
        name: of the entry.
        scenario: that it was tested on.
        protocol: how test batches were composed.
        average_accuracy: over the test experiences, in [0, 1].
        forgetting: in [0, 1]; None on another scenario than its own, and where all classes were one experience.
        accuracy_matrix: rows of training, and the last one measured anew; None on another scenario than its own.
        naive: the card's average accuracy of naive training; None if there is none.
        joint: that of joint training, likewise.
        seconds: that testing took.
    """

    name: str
    scenario: str
    protocol: Protocol
    average_accuracy: float
    forgetting: float | None
    accuracy_matrix: list[list[float]] | None
    naive: float | None
    joint: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(source: str | Path, scenario: str | None = None, *, protocol: Protocol | None = None) -> Evaluation:
    """Tests an entry again, on a scenario with the class order it was trained in.

    The last row of the accuracy matrix is measured; the rows before it are those of training, without which forgetting
    is undefined.

    Args:
        source: as of `lit_meta.zoo.load`.
        scenario: name of a scenario with the same number of classes; None takes the one it was trained on.
        protocol: how test batches are composed; None takes the card's.

    Raises:
        KeyError: an unknown entry or scenario.
        ValueError: the entry was saved without a run, and no scenario is given.

    Example:
        >>> round(evaluate("patch-net.recursive-readout_split-digits").average_accuracy, 2)
        1.0
    """
    from lit_meta.data.scenarios import scenario_for_seed

    described = card(source)
    if described["experiment"] is None:
        if scenario is None:
            raise ValueError(f"{described['name']} was saved without a run: name the scenario to test it on")
        benchmark = scenario_for_seed(scenario, described["seed"])
        own, chosen, precision = False, protocol or "standard", "highest"
    else:
        experiment = Experiment.from_dict(described["experiment"])
        own = scenario in (None, label(experiment.scenario))
        benchmark = scenario_for_seed(
            experiment.scenario if own or scenario is None else scenario, described["seed"], trusted=not own
        )
        chosen, precision = protocol or experiment.protocol, experiment.matmul_precision
        own = own and chosen == experiment.protocol
    network = load(source)
    started = time.perf_counter()
    with matmul_precision(precision):
        row = evaluate_network(network, benchmark, protocol=chosen)
    seconds = time.perf_counter() - started
    rows, forgetting, bounds = None, None, {}
    if own:
        measured = torch.cat([torch.tensor(described["accuracy_matrix"])[:-1], row.unsqueeze(0)])
        rows = measured.tolist()
        forgetting = float(matrix.forgetting(measured)) if len(measured) > 1 else None
        for bound in described["results"].keys() & {"naive", "joint"}:
            bounds[bound] = described["results"][bound]["average_accuracy"]["mean"]
    return Evaluation(
        name=described["name"],
        scenario=benchmark.name,
        protocol=chosen,
        average_accuracy=float(row.mean()),
        forgetting=forgetting,
        accuracy_matrix=rows,
        naive=bounds.get("naive"),
        joint=bounds.get("joint"),
        seconds=seconds,
    )


def verify(source: str | Path, *, learn: bool = True) -> list[str]:
    """The problems of an entry; empty if its files, golden outputs, accuracy, audit and continuation match the card.

    Without the data there is no knowing how it performs, and that is named too.

    Args:
        source: as of `lit_meta.zoo.load`.
        learn: also let it learn one more experience, to the numbers on its card.

    Raises:
        KeyError: no entry of that name.
    """
    try:
        files = locate(source)
        described = read_card(files)
    except (ValueError, OSError) as error:
        return [str(error)]
    problems = _file_problems(files, described)
    if problems:
        return problems
    try:
        network = load(source)
        if described["format"] > 1:
            golden = read_tensors(files, described, GOLDEN).tensors()
            if problem := golden_problem(network, golden, described["versions"]):
                return [problem]
        problems += _memory_problems(source, files, described)
        if described["experiment"] is not None and not problems:
            problems += _measured_problems(source, described, learn)
    except MissingDataError as error:
        return [*problems, f"files and golden outputs whole, accuracy not measured: {error.expected}"]
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        return [*problems, str(error)]
    return problems


def _file_problems(files: Files, described: Mapping[str, Any]) -> list[str]:
    problems = []
    for file, digest in described["sha256"].items():
        if file not in files.paths:
            problems.append(f"{file} is missing")
        elif file != CONFIG and sha256(files.path(file)) != digest:
            problems.append(f"{file} is not the file that the card describes (sha256 differs)")
    return problems


def _memory_problems(source: str | Path, files: Files, described: Mapping[str, Any]) -> list[str]:
    """Whether the memory belongs to the weights: a rule that computes parameters from it must leave outputs as they are."""
    module = load(source, with_rule=True)
    if described["format"] == 1:
        return []
    golden = read_tensors(files, described, GOLDEN).tensors()
    if problem := golden_problem(module.network, golden, {}):
        return [f"with the rule's memory, {problem}"]
    return []


def _measured_problems(source: str | Path, described: Mapping[str, Any], learn: bool) -> list[str]:
    from lit_meta.data.scenarios import scenario_for_seed

    problems = []
    accuracy = evaluate(source).average_accuracy
    stated = described["results"]["seed_average_accuracy"]
    if abs(accuracy - stated) > TOLERANCE:
        problems.append(f"average accuracy is {accuracy:.4f}, the card says {stated:.4f}")
    experiment = Experiment.from_dict(described["experiment"]).for_learner("rule")
    benchmark = scenario_for_seed(experiment.scenario, described["seed"], trusted=False)
    if SNAPSHOTS in described["sha256"]:
        row = evaluate_network(load(source, after=1), benchmark, protocol=described["protocol"])
        if float((row - torch.tensor(described["accuracy_matrix"][0])).abs().max()) > _CONTINUATION_TOLERANCE:
            problems.append("the snapshot after the first experience has another accuracy than the card says")
    if described["protocol"] == "standard":
        report = audit(load(source), benchmark, samples=_AUDIT_SAMPLES, singles=100)
        if not report.passed:
            failed = ", ".join(condition.name for condition in report.failures)
            problems.append(f"audit: predictions depend on how test batches are made ({failed})")
    if learn and described["continuation"] is not None:
        stated = described["continuation"]
        module = load(source, with_rule=True)
        measured = continue_learning(module, experiment, benchmark, described["seed"]).to_dict()
        for key, value in measured.items():
            if key == "learned":
                if value != stated[key]:
                    problems.append(f"continuation: it learned {value}, the card says {stated[key]}")
            elif abs(value - stated[key]) > _CONTINUATION_TOLERANCE:
                problems.append(f"continuation: {key} is {value:.4f}, the card says {stated[key]:.4f}")
    return problems

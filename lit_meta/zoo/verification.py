"""Checks of entries against their cards: files, and accuracy measured again."""

from __future__ import annotations

import time
from typing import Any

import torch

from lit_meta.evaluation.accuracy import Protocol
from lit_meta.evaluation.accuracy import evaluate as evaluate_network
from lit_meta.experiments.run import Experiment
from lit_meta.functional import matrix
from lit_meta.utils.io import sha256
from lit_meta.utils.modes import matmul_precision
from lit_meta.utils.specs import label
from lit_meta.zoo.cards import card, entry_folder
from lit_meta.zoo.checks import FILES, check_files
from lit_meta.zoo.entries import load, load_module


def evaluate(name: str, scenario: str | None = None, *, protocol: Protocol | None = None) -> dict[str, Any]:
    """Tests an entry again, on a scenario with the class order it was trained in.

    The last row of the accuracy matrix is measured; the rows before it are those of training, without which forgetting
    is undefined.

    Args:
        name: of the entry.
        scenario: name of a scenario with the same number of classes; None takes the one it was trained on.
        protocol: how test batches are composed; None takes the card's.

    Returns:
        ``name, scenario, protocol, average_accuracy, forgetting, accuracy_matrix, naive, joint, seconds``; on another
        scenario than the trained one, forgetting, matrix and bounds are None. Where all classes were one experience
        there is no forgetting, and naive training is the joint bound.

    Raises:
        KeyError: an unknown entry or scenario.
    """
    from lit_meta.data.scenarios import scenario_for_seed

    described = card(name)
    experiment = Experiment.from_dict(described["experiment"])
    own = scenario in (None, label(experiment.scenario))
    benchmark = scenario_for_seed(
        experiment.scenario if own or scenario is None else scenario, described["seed"], trusted=not own
    )
    protocol = protocol or experiment.protocol
    started = time.perf_counter()
    with matmul_precision(experiment.matmul_precision):
        row = evaluate_network(load(name), benchmark, protocol=protocol)
    seconds = time.perf_counter() - started
    evaluation: dict[str, Any] = {
        "name": name,
        "scenario": benchmark.name,
        "protocol": protocol,
        "average_accuracy": float(row.mean()),
        "forgetting": None,
        "accuracy_matrix": None,
        "naive": None,
        "joint": None,
        "seconds": seconds,
    }
    if own and protocol == experiment.protocol:
        measured = torch.cat([torch.tensor(described["accuracy_matrix"])[:-1], row.unsqueeze(0)])
        evaluation["accuracy_matrix"] = measured.tolist()
        evaluation["forgetting"] = float(matrix.forgetting(measured)) if len(measured) > 1 else None
        for bound in described["results"].keys() & {"naive", "joint"}:
            evaluation[bound] = described["results"][bound]["average_accuracy"]["mean"]
    return evaluation


def verify(name: str) -> list[str]:
    """The problems of an entry; empty if its files and its accuracy match the card.

    Without the data there is no knowing how it performs, and that is named too.

    Raises:
        KeyError: no entry of that name.
    """
    from lit_meta.data.sources.base import MissingDataError

    try:
        described = card(name)
        check_files(entry_folder(name))
    except (ValueError, OSError) as error:
        return [str(error)]
    problems = []
    for file in FILES:
        path = entry_folder(name) / file
        if not path.is_file():
            problems.append(f"{file} is missing")
        elif sha256(path) != described["sha256"][file]:
            problems.append(f"{file} is not the file that the card describes (sha256 differs)")
    if problems:
        return problems
    try:
        load_module(name)
        accuracy = evaluate(name)["average_accuracy"]
    except MissingDataError as error:
        return [f"files whole, accuracy not measured: {error.expected}"]
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        return [str(error)]
    stated = described["results"]["seed_average_accuracy"]
    if abs(accuracy - stated) > 0.002:
        problems.append(f"average accuracy is {accuracy:.4f}, the card says {stated:.4f}")
    return problems

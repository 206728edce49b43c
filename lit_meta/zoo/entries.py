"""Loading entries, and making them from runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lit_meta.core.memory_codec import decode_numbered
from lit_meta.experiments.config import LEARNERS, is_classification
from lit_meta.experiments.run import Experiment, build_module
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.networks import build_network
from lit_meta.rules import build_rule
from lit_meta.utils.io import load_json, load_tensors, load_text, load_yaml, sha256
from lit_meta.utils.memory_limit import MemoryLimit
from lit_meta.utils.paths import own_zoo_folder, zoo_folder
from lit_meta.utils.specs import label
from lit_meta.zoo.cards import card, entry_folder, readme
from lit_meta.zoo.checks import FILES, check_files, check_memory, check_weights

_ROOM = 64 << 20  # Bytes that a network may take beside what is in its files: buffers, results on the way.


def load(name: str) -> nn.Module:
    """A trained network, in evaluation mode, on the CPU.

    Raises:
        KeyError: no entry of that name.
        ValueError: a file is damaged or is not the one that the card describes.

    Example:
        >>> load("naca-mlp-digits")(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    described = card(name)
    check_files(entry_folder(name))
    weights = _tensors(name, described, FILES[0])
    experiment = Experiment.from_dict(described["experiment"]).for_learner("rule")
    with _limit(name, weights):
        network = build_network(experiment.network, trusted=False)
    check_weights(entry_folder(name) / FILES[0], network, weights)
    network.load_state_dict(weights)
    return network.eval()


def load_module(name: str) -> MetaplasticModule:
    """A trained network with its rule and the rule's memory, ready for the next experience.

    Raises:
        KeyError: no entry of that name.
        ValueError: a file is damaged or is not the one that the card describes.

    Example:
        >>> module = load_module("ewc-mlp-digits")
        >>> sorted(module.plasticity.rules[0].state)
        ['anchor', 'importance']
    """
    described = card(name)
    check_files(entry_folder(name))
    weights, tensors = (_tensors(name, described, file) for file in FILES)
    experiment = Experiment.from_dict(described["experiment"]).for_learner("rule")
    with _limit(name, weights):
        module = build_module(experiment, described["seed"], trusted=False)
    check_weights(entry_folder(name) / FILES[0], module.network, weights)
    rules = module.plasticity.rules if module.plasticity is not None else ()
    memories = decode_numbered(tensors, len(rules))
    check_memory(entry_folder(name) / FILES[1], module.network, memories)
    module.network.load_state_dict(weights)
    for rule, memory in zip(rules, memories, strict=True):
        rule.state.load_state_dict(memory)
    return module


def export(name: str, folder: str | Path) -> Path:
    """Copies an entry to ``folder/name``.

    Raises:
        KeyError: no entry of that name.
        FileExistsError: the copy is there already.
    """
    card(name)
    target = Path(folder) / name
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    shutil.copytree(entry_folder(name), target)
    return target


def add(run_dir: str | Path, *, zoo: Path | None = None) -> Path:
    """Makes a zoo entry from a finished run; replaces the entry of the same name.

    Args:
        run_dir: the run's folder.
        zoo: the folder for the entry; None takes the zoo of a checkout, or else a folder in the user's home, which `load` and
            the other functions search too (`lit_meta.utils.paths.own_zoo_folder`).

    Returns:
        The entry's folder.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: a learner is missing that is a bound for the rule; or the rule or the scenario needs tasks at test time,
            while the network of an entry is tested without them.
    """
    run = Path(run_dir)
    for file in (*FILES, "metrics.json", "config.yaml", "accuracy_matrix.csv"):
        if not (run / file).is_file():
            raise FileNotFoundError(f"{run / file} is missing: only a finished run becomes a zoo entry")
    experiment = Experiment.from_dict(load_yaml(run / "config.yaml"))
    if experiment.tasks_told:
        raise ValueError(
            f"{run} used the task of every test sample, and the network of a zoo entry is tested without tasks"
        )
    for spec in [experiment.rule] if isinstance(experiment.rule, dict) else experiment.rule or []:
        if build_rule(spec).needs_tasks:
            raise ValueError(
                f"{run} learned with {label(spec)}, which needs the task of every sample: the network of a zoo entry is "
                "tested without its rule, and would run ungated"
            )
    metrics = load_json(run / "metrics.json")
    # If all classes are in one experience, naive training is the joint bound.
    needed = LEARNERS[:2] if is_classification(experiment.to_dict()) else LEARNERS
    absent = [learner for learner in needed if learner not in metrics]
    if absent:
        raise ValueError(
            f"{run} has no {' and no '.join(absent)} learner: an entry shows the rule between its bounds, so run them as well "
            "(lit-meta run --resume)"
        )
    seed = experiment.seeds[0]
    results: dict[str, Any] = {"seed_average_accuracy": metrics["rule"]["average_accuracy"]["values"][0]}
    for learner in (*needed, *(control for control in experiment.controls if control in metrics)):
        results[learner] = {q: metrics[learner][q] for q in ("average_accuracy", "forgetting", "cost")}
    try:
        rows = [[float(v) for v in row.split(",")] for row in load_text(run / "accuracy_matrix.csv").split()]
    except ValueError as error:
        raise ValueError(f"{run / 'accuracy_matrix.csv'} is damaged: {error}") from None
    folder = _target(experiment.name) if zoo is None else zoo / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(run / file, folder / file)
    described = {
        "name": experiment.name,
        "command": metrics["command"],
        "protocol": experiment.protocol,
        "seed": seed,
        "experiment": experiment.to_dict(),
        "results": results,
        "accuracy_matrix": rows,
        "sha256": {file: sha256(folder / file) for file in FILES},
        "versions": metrics["versions"],
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(described, sort_keys=False, width=120))
    (folder / "README.md").write_text(readme(described))
    return folder


def _target(name: str) -> Path:
    """The folder for a new entry of the user."""
    if own_zoo_folder() != zoo_folder() and (zoo_folder() / name).exists():
        raise ValueError(
            f"{name!r} is an entry included in lit_meta, which would be loaded instead of this one: give the experiment "
            "another name, or the entry another zoo"
        )
    return own_zoo_folder() / name


def _tensors(name: str, described: Mapping[str, Any], file: str) -> dict[str, torch.Tensor]:
    path = entry_folder(name) / file
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if sha256(path) != described["sha256"][file]:
        raise ValueError(f"{path} is not the file that the card describes (sha256 differs): fetch the entry again")
    return load_tensors(path)


def _limit(name: str, weights: Mapping[str, torch.Tensor]) -> MemoryLimit:
    """A network larger than its weights is not the one that they are of: it is refused before it takes the memory."""
    stored = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    return MemoryLimit(
        8 * stored + _ROOM,
        f"the network on the card of {name!r} is far larger than its weights of {stored:,} bytes: fetch the entry again",
    )

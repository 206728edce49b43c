"""The zoo: trained networks with the memory of their rules, as folders of safetensors and a card."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lit_meta.evaluation.accuracy import Protocol
from lit_meta.evaluation.accuracy import evaluate as evaluate_network
from lit_meta.experiments.config import LEARNERS, is_classification
from lit_meta.experiments.run import Experiment, build_module, build_rules
from lit_meta.functional import matrix
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.networks import build_network
from lit_meta.rules import RULES
from lit_meta.utils.io import load_json, load_tensors, load_text, load_yaml, sha256
from lit_meta.utils.modes import matmul_precision
from lit_meta.utils.paths import zoo_folder
from lit_meta.utils.registry import unknown

_FILES = ("model.safetensors", "rule.safetensors")


def names() -> list[str]:
    """The names of all entries.

    Example:
        >>> "naca-mlp-digits" in names()
        True
    """
    return sorted(path.parent.name for path in zoo_folder().glob("*/card.yaml"))


def card(name: str) -> dict[str, Any]:
    """Everything that is known of an entry: network, rule, scenario, protocol, results, sha256 of its files.

    Raises:
        KeyError: no entry of that name; the nearest are named.
        ValueError: the card is damaged.
    """
    if name not in names():
        raise unknown("zoo entry", name, names())
    described = load_yaml(zoo_folder() / name / "card.yaml")
    absent = {"experiment", "seed", "sha256", "results", "protocol"} - described.keys()
    if absent:
        raise ValueError(f"the card of {name!r} lacks {', '.join(sorted(absent))}: fetch the entry again")
    return described


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
    network = build_network(**described["experiment"]["network"])
    network.load_state_dict(_tensors(name, described, "model.safetensors"))
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
    weights, tensors = (_tensors(name, described, file) for file in _FILES)
    module = build_module(Experiment.from_dict(described["experiment"]), described["seed"])
    module.network.load_state_dict(weights)
    for number, rule in enumerate(module.plasticity.rules if module.plasticity is not None else ()):
        prefix = f"{number}:"
        rule.state.load_state_dict({k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)})
    return module


def evaluate(name: str, scenario: str | None = None, *, protocol: Protocol | None = None) -> dict[str, Any]:
    """Tests an entry anew on a scenario with the class order it was trained in.

    The last row of the accuracy matrix is measured now; the rows before it are those of training, without which
    forgetting is not defined.

    Args:
        name: of the entry.
        scenario: name of a scenario with as many classes; None takes the one it was trained on.
        protocol: how test batches are made; None takes the card's.

    Returns:
        ``name, scenario, protocol, average_accuracy, forgetting, accuracy_matrix, naive, joint, seconds``; on another
        scenario than the trained one, forgetting, matrix and bounds are None. Where all classes were one experience
        there is no forgetting, and naive training is the joint bound.

    Raises:
        KeyError: an unknown entry or scenario.
    """
    from lit_meta.data import scenario as make_scenario

    described = card(name)
    experiment = Experiment.from_dict(described["experiment"])
    own = scenario in (None, experiment.scenario["name"])
    benchmark = make_scenario(**(experiment.scenario if own else {"name": scenario}), seed=described["seed"])
    protocol = protocol or experiment.protocol
    started = time.perf_counter()
    with matmul_precision(experiment.matmul_precision):
        row = evaluate_network(load(name), benchmark, protocol=protocol)
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {
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
        found["accuracy_matrix"] = measured.tolist()
        found["forgetting"] = float(matrix.forgetting(measured)) if len(measured) > 1 else None
        for bound in described["results"].keys() & {"naive", "joint"}:
            found[bound] = described["results"][bound]["average_accuracy"]["mean"]
    return found


def verify(name: str) -> list[str]:
    """What is wrong with an entry; empty where its files are those of the card and it performs as the card says.

    Without the data there is no knowing how it performs, and that is named too.
    """
    described = card(name)
    problems = []
    for file in _FILES:
        path = zoo_folder() / name / file
        if not path.is_file():
            problems.append(f"{file} is missing")
        elif sha256(path) != described["sha256"][file]:
            problems.append(f"{file} is not the file that the card describes (sha256 differs)")
    if problems:
        return problems
    try:
        accuracy = evaluate(name)["average_accuracy"]
    except FileNotFoundError as error:
        return [f"files whole, accuracy not measured: {str(error).split('. ')[0]}"]
    stated = described["results"]["seed_average_accuracy"]
    if abs(accuracy - stated) > 0.002:
        problems.append(f"average accuracy is {accuracy:.4f}, the card says {stated:.4f}")
    return problems


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
    shutil.copytree(zoo_folder() / name, target)
    return target


def add(run_dir: str | Path, *, zoo: Path | None = None) -> Path:
    """Makes a zoo entry from a finished run; replaces the entry of the same name.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: a learner is missing that shows the rule between its bounds; or the rule or the scenario tells tasks in
            testing, and the network of an entry is tested by itself.
    """
    run = Path(run_dir)
    for file in (*_FILES, "metrics.json", "config.yaml", "accuracy_matrix.csv"):
        if not (run / file).is_file():
            raise FileNotFoundError(f"{run / file} is missing: only a finished run becomes a zoo entry")
    experiment = Experiment.from_dict(load_yaml(run / "config.yaml"))
    if experiment.tasks_told:
        raise ValueError(f"{run} was told the task of every sample, and the network of a zoo entry is tested by itself")
    for spec in [experiment.rule] if isinstance(experiment.rule, dict) else experiment.rule or []:
        if RULES[spec["name"]].needs_tasks:
            raise ValueError(
                f"{run} learned with {spec['name']}, which must be told the task of every sample: the network of a zoo entry "
                "is tested by itself, without its rule, and would answer ungated"
            )
    metrics = load_json(run / "metrics.json")
    # Where all classes are one experience, naive training is the joint bound.
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
    folder = (zoo or zoo_folder()) / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in _FILES:
        shutil.copy(run / file, folder / file)
    described = {
        "name": experiment.name,
        "command": metrics["command"],
        "protocol": experiment.protocol,
        "seed": seed,
        "experiment": experiment.to_dict(),
        "results": results,
        "accuracy_matrix": rows,
        "sha256": {file: sha256(folder / file) for file in _FILES},
        "versions": metrics["versions"],
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(described, sort_keys=False, width=120))
    (folder / "README.md").write_text(readme(described))
    return folder


def readme(described: Mapping[str, Any]) -> str:
    """The page of an entry, made from its card."""
    experiment, results = described["experiment"], described["results"]
    rules = build_rules(experiment["rule"])
    length = f"{experiment['scenario'].get('experiences', 'default')} experiences"
    stream = "all classes in one experience" if is_classification(experiment) else length
    lines = [
        f"# {described['name']}",
        "",
        f"`{experiment['network']['name']}` trained by `{rules}` on `{experiment['scenario']['name']}` "
        f"({stream}), protocol `{described['protocol']}`.",
        "",
        "| learner | average accuracy (%) | forgetting (points) |",
        "|---|---|---|",
    ]
    for learner, result in results.items():
        if learner == "seed_average_accuracy":
            continue
        cells = (percent(result[quantity]) for quantity in ("average_accuracy", "forgetting"))
        lines += [f"| {learner} | {' | '.join(cells)} |"]
    lines += [
        "",
        f"Mean ± standard deviation over the seeds {experiment['seeds']}; the weights here are of seed {described['seed']}.",
        *(["", experiment["note"]] if experiment["note"] else []),
        "",
        "Remade by:",
        "",
        f"    {described['command']}",
        f"    lit-meta zoo add {described['command'].split('--run_dir ')[-1].split()[0]}",
        "",
    ]
    return "\n".join(lines)


def accuracies(results: Mapping[str, Any]) -> list[str]:
    """Average accuracies in per cent of the rule, of naive training and of the joint bound; a dash for what was not run.

    Example:
        >>> accuracies({"rule": {"average_accuracy": {"mean": 0.9, "sd": None}}})
        ['90.0', '–', '–']
    """
    return [percent(results.get(learner, {}).get("average_accuracy")) for learner in LEARNERS]


def percent(found: Mapping[str, Any] | None) -> str:
    """A summary over seeds in per cent.

    Example:
        >>> percent({"mean": 0.1234, "sd": 0.01, "values": [0.1, 0.2]})
        '12.3 ± 1.0'
    """
    if found is None:
        return "–"
    spread = "" if found["sd"] is None else f" ± {100 * found['sd']:.1f}"
    return f"{100 * found['mean']:.1f}{spread}"


def _tensors(name: str, described: Mapping[str, Any], file: str) -> dict[str, torch.Tensor]:
    path = zoo_folder() / name / file
    tensors = load_tensors(path)
    if sha256(path) != described["sha256"][file]:
        raise ValueError(f"{path} is not the file that the card describes (sha256 differs): fetch the entry again")
    return tensors

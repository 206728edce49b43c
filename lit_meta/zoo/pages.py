"""The README of an entry, as the Hugging Face hub reads it: front matter, results, how to use and to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_meta.experiments.config import is_classification
from lit_meta.experiments.summary import percent
from lit_meta.utils.specs import label

_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit"}


def readme(card: Mapping[str, Any]) -> str:
    """The page of an entry, generated from its card."""
    rules = card["rule"] if isinstance(card["rule"], list) else [card["rule"]] if card["rule"] else []
    learner = " and ".join(f"`{label(rule)}`" for rule in rules) or "its loss alone"
    lines = [f"# {card['name']}", ""]
    if card["experiment"] is None:
        lines += [f"`{label(card['network'])}` trained by {learner}."]
    else:
        lines += _trained(card, learner)
    if card["note"]:
        lines += ["", card["note"]]
    if card["continuation"]:
        lines += ["", *_continuation(card["continuation"])]
    lines += ["", *_data(card), "", "```python", "from lit_meta import zoo", ""]
    lines += [f'network = zoo.load("{card["name"]}")  # or the folder, or hf://owner/name']
    if card["preprocessing"] and card["preprocessing"]["kind"] == "image":
        lines += [f'print(zoo.predict("{card["name"]}", "image.png"))']
    lines += ["```"]
    if card["command"]:
        lines += ["", "Made again by:", "", *(f"    {line}" for line in _commands(card))]
    return "\n".join(lines) + "\n"


def model_card(card: Mapping[str, Any]) -> str:
    """The README of an entry's folder: front matter and page."""
    import yaml

    rules = card["rule"] if isinstance(card["rule"], list) else [card["rule"]] if card["rule"] else []
    weights = card["provenance"].get("weights", {})
    data = card["provenance"].get("data", {})
    matter: dict[str, Any] = {
        "library_name": "lit-meta",
        "license": _LICENCES.get(weights.get("licence", ""), "other"),
        "pipeline_tag": "image-classification",
        "tags": [
            "continual-learning",
            "metaplasticity",
            "pytorch-lightning",
            *(["spiking-neural-network"] if card["spiking"] else []),
            label(card["network"]),
            *map(label, rules),
        ],
    }
    if data.get("name"):
        matter["datasets"] = [data["name"]]
    if card["results"]:
        matter |= {"metrics": ["accuracy"], "model-index": _index(card)}
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=120)}---\n\n{readme(card)}"


def _trained(card: Mapping[str, Any], learner: str) -> list[str]:
    experiment, results = card["experiment"], card["results"]
    length = f"{experiment['scenario'].get('experiences', 'default')} experiences"
    stream = "all classes in one experience" if is_classification(experiment) else length
    lines = [
        f"`{label(experiment['network'])}` trained by {learner} on `{label(experiment['scenario'])}` ({stream}), protocol "
        f"`{card['protocol']}`.",
        "",
        "| learner | average accuracy (%) | forgetting (points) |",
        "|---|---|---|",
    ]
    for name, result in results.items():
        if name != "seed_average_accuracy":
            cells = (percent(result[quantity]) for quantity in ("average_accuracy", "forgetting"))
            lines += [f"| {name} | {' | '.join(cells)} |"]
    seeds = ", ".join(map(str, experiment["seeds"]))
    return [
        *lines,
        "",
        f"Mean ± standard deviation over the seeds {seeds}; the weights here are of seed {card['seed']}.",
    ]


def _continuation(continuation: Mapping[str, Any]) -> list[str]:
    new, before, after = (f"{100 * continuation[key]:.1f}" for key in ("new", "old_before", "old_after"))
    return [
        f"It goes on learning: after one more experience ({continuation['learned']}), {new} % of that and {after} % of what "
        f"it knew before (then {before} %)."
    ]


def _data(card: Mapping[str, Any]) -> list[str]:
    data, weights = (card["provenance"].get(part, {}) for part in ("data", "weights"))
    lines = [f"{len(card['class_names'] or [])} classes, inputs of shape {tuple(card['input_shape'] or ())}."]
    if data.get("name"):
        licence = data.get("licence") or "no licence stated by their authors"
        lines[0] += f" Data: {data['name']} ({data.get('origin', '')}; {licence})."
    if weights.get("licence"):
        lines[0] += f" Weights: {weights['licence']}."
    return lines


def _commands(card: Mapping[str, Any]) -> list[str]:
    command = card["command"]
    if "--run_dir " not in command:
        return [command]
    return [command, f"lit-meta zoo add {command.split('--run_dir ')[-1].split()[0]}"]


def _index(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    accuracy = card["results"]["rule"]["average_accuracy"]
    forgetting = card["results"]["rule"]["forgetting"]
    metrics = [{"type": "accuracy", "name": "average accuracy (%)", "value": round(100 * accuracy["mean"], 2)}]
    if forgetting is not None:
        metrics += [{"type": "forgetting", "name": "forgetting (points)", "value": round(100 * forgetting["mean"], 2)}]
    scenario = label(card["experiment"]["scenario"])
    data = card["provenance"].get("data", {}).get("name") or scenario
    result = {
        "task": {"type": "image-classification", "name": "Continual learning"},
        "dataset": {"type": data, "name": scenario},
        "metrics": metrics,
    }
    return [{"name": card["name"], "results": [result]}]

"""The README of an entry, as the Hugging Face hub reads it: front matter, results, how to use and to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_meta.experiments.config import is_classification
from lit_meta.experiments.summary import percent
from lit_meta.utils.specs import label
from lit_meta.zoo.cards import scenario_of

_MARGIN = 0.02  # Of accuracy, within which two learners are the same.
_FILES = {"image": "image.png", "sound": "word.wav"}
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
    if card["preprocessing"] and (file := _FILES.get(card["preprocessing"]["kind"])):
        lines += [f'print(zoo.predict("{card["name"]}", "{file}"))']
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
        "pipeline_tag": _task(card),
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
        f"`{label(experiment['network'])}` trained by {learner} on `{scenario_of(card)}` ({stream}), protocol "
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
        *_verdict(card),
    ]


def _verdict(card: Mapping[str, Any]) -> list[str]:
    """What the table shows, said plainly where the rule is not better than a baseline."""
    results = card["results"]
    means = {name: results[name]["average_accuracy"]["mean"] for name in ("rule", "naive", "replay") if name in results}
    if is_classification(card["experiment"]) or "rule" not in means:
        return []
    said = []
    if means["rule"] < means.get("naive", 0.0) + _MARGIN:
        said += ["On this stream the rule is no better than naive training."]
    stored = card["experiment"].get("controls", {}).get("replay", {}).get("replay")
    if means["rule"] < means.get("replay", 0.0):
        said += [f"Replay of {stored} stored samples is better here."]
    return ["", " ".join(said)] if said else []


def _task(card: Mapping[str, Any]) -> str:
    sound = card["preprocessing"] and card["preprocessing"]["kind"] == "sound"
    return "audio-classification" if sound else "image-classification"


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
    scenario = scenario_of(card)
    data = card["provenance"].get("data", {}).get("name") or scenario
    result = {
        "task": {"type": _task(card), "name": "Continual learning"},
        "dataset": {"type": data, "name": scenario},
        "metrics": metrics,
    }
    return [{"name": card["name"], "results": [result]}]

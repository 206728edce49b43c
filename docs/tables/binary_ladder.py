"""Where binary metaplasticity's published number comes from: a ladder of widths and passes, with what the network is told.

The code published with the paper normalises each test batch, of one task, by its own statistics, and also restores the
scales and shifts of the batch normalisations as they were when that task had been learned. The honest protocol tells neither.

``python -m docs.tables.binary_ladder --measure 1000x2`` (width x passes) adds a step to ``docs/results/binary-ladder.json``;
without an option the table of ``docs/published.md`` is made from it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from docs.tables.results import DOCS, write
from lit_meta.data import experience_tensors
from lit_meta.data.scenarios import scenario_for_seed
from lit_meta.evaluation.accuracy import accuracy_by_batching, accuracy_of
from lit_meta.experiments import load_experiment
from lit_meta.experiments.config import Experiment
from lit_meta.experiments.run import run_seed
from lit_meta.utils.io import load_json, save_json

RESULTS = DOCS / "results" / "binary-ladder.json"
CONFIG = "permuted-mnist-binary-paper"
Samples = tuple[Tensor, Tensor]


def step(width: int, passes: int, *, seed: int = 0, accelerator: str = "cpu", **scenario: Any) -> dict[str, Any]:
    """One step of the ladder.

    Args:
        width: of both hidden layers.
        passes: over each permutation.
        seed: of weights, permutations and the order of samples.
        accelerator: Lightning's name of the device.
        **scenario: settings of the scenario in place of the config's.

    Returns:
        Accuracy on each task after the last, by what is told: ``"shuffled"`` (nothing), ``"statistics"`` (batches of one task,
        normalised by themselves), ``"parameters"`` (the scales and shifts of each task as well).
    """
    described = load_experiment(CONFIG).to_dict()
    described["network"]["hidden"] = [width, width]
    described["max_epochs"] = passes
    described["scenario"] |= scenario
    experiment = Experiment.from_dict(described)
    benchmark = scenario_for_seed(experiment.scenario, seed)
    tests = [experience_tensors(experience) for experience in benchmark.test_stream]
    kept: list[dict[str, Tensor]] = []

    def keep(index: int, network: nn.Module) -> None:
        kept.append(copy.deepcopy(network.get_submodule("normalizations").state_dict()))

    result, module = run_seed(
        experiment, "rule", seed, accelerator=accelerator, benchmark=benchmark, after_experience=keep
    )
    network = module.network.eval()
    shuffled = accuracy_by_batching(network, tests, seed=seed)["shuffled"]
    return {
        "width": width,
        "passes": passes,
        "seed": seed,
        "device": accelerator,
        "shuffled": shuffled,
        "statistics": [round(float(value), 4) for value in result.accuracy_matrix[-1]],
        "parameters": with_own_parameters(network, kept, tests),
    }


def with_own_parameters(network: nn.Module, kept: Sequence[dict[str, Tensor]], tests: Sequence[Samples]) -> list[float]:
    """Accuracy on each task with the scales and shifts that the normalisations had when it had been learned."""
    normalizations = network.get_submodule("normalizations")
    accuracies = []
    for parameters, test in zip(kept, tests, strict=True):
        normalizations.load_state_dict(parameters)
        accuracies.append(round(float(accuracy_of(network, [test], protocol="paper")[0]), 4))
    normalizations.load_state_dict(kept[-1])
    return accuracies


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The ladder as a Markdown table, in per cent."""
    lines = [
        "| hidden layers | passes | nothing told: shuffled test batches | statistics of batches of one task "
        "| and the scales and shifts of that task | made on |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["width"], row["passes"])):
        cells = [_percent(row[key]) for key in ("shuffled", "statistics", "parameters")]
        lines.append(f"| 2 x {row['width']:,} | {row['passes']} | {' | '.join(cells)} | {row['device']} |")
    return "\n".join(lines)


def _percent(value: Any) -> str:
    if value is None:
        return "–"
    values = torch.as_tensor(value, dtype=torch.float64)
    return f"{100 * float(values.mean()):.1f}"


def main(page: Path = DOCS / "published.md", results: Path = RESULTS) -> bool:
    """Writes the table into its page; returns whether that changed the page."""
    return write(page, table(load_json(results)["rows"]), section="ladder")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", metavar="WIDTHxPASSES", help="steps to measure")
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    rows = load_json(RESULTS)["rows"] if RESULTS.is_file() else []
    for name in options.measure or ():
        width, passes = (int(part) for part in name.split("x"))
        measured = step(width, passes, accelerator=options.accelerator)
        rows = [row for row in rows if (row["width"], row["passes"]) != (width, passes)] + [measured]
        save_json(RESULTS, {"name": "binary-ladder", "config": CONFIG, "rows": rows})
    main()

"""Panels on a run's network: its weights and its spikes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_meta.networks import SpikingNetwork
from lit_meta.report.panel import Panel
from lit_meta.report.runs import Estimate, Run
from lit_meta.report.spike_figures import spikes_raster
from lit_meta.report.style import Series, learner_series
from lit_meta.report.text import learner_label, rule_name
from lit_meta.report.weight_figures import first_and_last, shares_changed, synapses_changed, weight_changes

if TYPE_CHECKING:
    from lit_meta.evaluation import Retention


def weight_distances(run: Run) -> Panel | str:
    """How far weights moved over the stream, or why it cannot be shown."""
    by_learner = {name: first_and_last(run, name) for name in ("rule", "naive") if name in run.streams}
    weights = {
        learner_label(run, name): (pairs, learner_series(name, list(run.learners)))
        for name, pairs in by_learner.items()
        if pairs is not None
    }
    if not weights:
        return "no checkpoint was kept."
    shares = "; ".join(
        f"{label}: " + ", ".join(f"{100 * share:.0f} % of {layer}" for layer, share in shares_changed(pairs).items())
        for label, (pairs, _) in weights.items()
    )
    return Panel(
        "weight_change",
        "How far the stream moved the weights",
        "For every distance, the share of a layer's synapses whose weight moved by more than that between the beginning and "
        "the end of the stream, in per cent of the layer's typical initial weight; first seed. The vertical line is at 1 %, "
        f"beyond which lie: {shares}.",
        f"Line chart. Share of synapses that moved by more than 1 %. {shares}.",
        partial(weight_changes, weights),
    )


def synapses(run: Run) -> Panel | str:
    """How many synapses each experience changed, or why it cannot be shown."""
    names = list(run.learners)
    layers: dict[str, dict[str, tuple[Estimate, Series]]] = {}
    for name, learner in run.streams.items():
        recorded = learner.changes()
        if len(recorded) < len(learner.seeds):
            continue
        for layer in recorded[0][0]:
            shares = torch.tensor([[record[layer]["changed"] for record in records] for records in recorded])
            entry = layers.setdefault(layer.removeprefix("network."), {})
            entry[learner_label(run, name)] = (Estimate.of(shares), learner_series(name, names))
    if not layers:
        return "not recorded; lit-meta run --record_weight_change records it."
    means = "; ".join(
        f"{layer}, {label}: {100 * float(share.mean.mean()):.0f} % on average"
        for layer, entry in layers.items()
        for label, (share, _) in entry.items()
    )
    return Panel(
        "synapses_changed",
        "Synapses changed by each experience",
        "Share of a layer's synapses that moved by more than 1 % of its typical weight while an experience was learned. "
        "Bands: 95 % t-intervals over seeds.",
        f"Line chart. {means}.",
        partial(synapses_changed, layers),
    )


def final_network(run: Run) -> nn.Module | str:
    """The network that the main learner ended with, of the first seed, or why there is none."""
    from lit_meta.networks import build_network

    return _trained(run, build_network(run.experiment.network, trusted=False))


def _trained(run: Run, network: nn.Module) -> nn.Module | str:
    """A network of the run with the weights of `final_network`."""
    from lit_meta.experiments.run_folder import load_final_weights

    try:
        return load_final_weights(network, run.folder)
    except (FileNotFoundError, ValueError) as error:
        return f"{error}."


def benchmark_of(run: Run) -> Any:
    """The benchmark of the first seed, or why there is none."""
    from lit_meta.data.scenarios import scenario_for_seed

    try:
        return scenario_for_seed(run.experiment.scenario, run.experiment.seeds[0], trusted=False)
    except FileNotFoundError as error:
        return f"the scenario's data are missing ({error})."
    except ValueError as error:
        return f"the scenario cannot be made ({error})."


def between(first: Run, second: Run) -> Retention | str:
    """What the second run's network lost of what the first one's knows, class by class, or why it cannot be told."""
    from lit_meta.evaluation import retention

    one, other = final_network(first), final_network(second)
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else str(other)
    benchmark = benchmark_of(first)
    return benchmark if isinstance(benchmark, str) else retention(one, other, benchmark)


def raster(run: Run) -> Panel | str:
    """Spikes of two test samples, or why they cannot be shown."""
    from lit_meta.data import experience_tensors
    from lit_meta.evaluation.activations import spike_raster
    from lit_meta.networks import build_network
    from lit_meta.utils.specs import label

    network = build_network(run.experiment.network, trusted=False)
    if not isinstance(network, SpikingNetwork):
        return f"the network ({label(run.experiment.network)}) does not spike."
    trained, benchmark = _trained(run, network), benchmark_of(run)
    if isinstance(trained, str) or isinstance(benchmark, str):
        return trained if isinstance(trained, str) else benchmark
    samples = {}
    for position, title in ((0, "from the first experience"), (-1, "from the last experience")):
        inputs, targets = experience_tensors(benchmark.test_stream[position])
        name = benchmark.class_names[int(targets[0])]
        samples[f"class {name}, {title}"] = spike_raster(network, inputs[0])
    rates = "; ".join(
        f"{title}: " + ", ".join(f"{layer} {100 * float(spikes.mean()):.0f} %" for layer, spikes in raster.items())
        for title, raster in samples.items()
    )
    classes = list(benchmark.class_names) if len(benchmark.class_names) <= 12 else []
    return Panel(
        "spikes",
        "Spikes",
        "Each mark is a spike of one neuron at one time step, for a test sample of the first experience and one of the last, "
        f"in the network trained with {rule_name(run)} and the first seed. The output neuron that fires most is the "
        "prediction.",
        f"Spike rasters. Share of neurons and steps with a spike: {rates}.",
        partial(spikes_raster, samples, classes),
    )

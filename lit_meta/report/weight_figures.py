"""Synapses changed by learning: how far, and shares along the stream."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from lit_meta.core.layers import weight_layers
from lit_meta.experiments.run import network_for_seed
from lit_meta.functional.weight_change import changed_fraction
from lit_meta.report.runs import Estimate, Run
from lit_meta.report.style import FAINT, Series, draw_lines, label_rows, legend_above, line_width, new_figure, styled
from lit_meta.streams.checkpoints import last_weights


def first_and_last(run: Run, learner: str) -> dict[str, tuple[Tensor, Tensor]] | None:
    """The first seed's weights before and after learning, by name of the weight layer.

    The initial weights are reproduced from the seed; the final ones are in the learner's checkpoint.

    Args:
        run: a finished run.
        learner: its name.

    Returns:
        By layer, (initial weights, final weights); None if no checkpoint was kept.

    Raises:
        ValueError: the checkpoint does not match the network that the config describes.
    """
    seed = run.learners[learner].seeds[0]
    saved = last_weights(seed.folder)
    if saved is None:
        return None
    spec = run.experiment.for_learner(learner).network  # type: ignore[arg-type]
    network = network_for_seed(spec, seed.seed)
    weights = {}
    for layer in weight_layers(network):
        before = network.get_parameter(f"{layer.name}.weight").detach()
        after = saved.get(f"network.{layer.name}.weight")
        if after is None or after.shape != before.shape:
            raise ValueError(
                f"the checkpoint in {seed.folder} has no layer {layer.name!r} of the shape that config.yaml describes"
            )
        weights[layer.name] = (before, after)
    return weights


def shares_changed(weights: Mapping[str, tuple[Tensor, Tensor]], threshold: float = 0.01) -> dict[str, float]:
    """Share of synapses of each layer that moved by more than the threshold; see `changed_fraction`."""
    return {name: float(changed_fraction(*pair, threshold=threshold)) for name, pair in weights.items()}


def weight_changes(
    learners: Mapping[str, tuple[Mapping[str, tuple[Tensor, Tensor]], Series]], threshold: float = 0.01
) -> Figure:
    """How far synapses moved: the share of a layer's synapses that moved by more than x, a panel for each layer.

    Args:
        learners: by label, the weights before and after of each layer, and the style.
        threshold: a share of the layer's typical initial weight, marked by a line.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> layers = {"layers.0": (torch.ones(3, 4), torch.zeros(3, 4))}
        >>> weight_changes({"EWC": (layers, run_series(0))}).axes[0].get_title(loc="left")
        'layers.0'
    """
    with styled():
        names = list(next(iter(learners.values()))[0])
        figure, panels = new_figure(len(names), height=3.0)
        moved = torch.logspace(-4, 1, 51, dtype=torch.float64)
        for axes, name in zip(panels, names, strict=True):
            axes.axvline(100 * threshold, color=FAINT, lw=1)
            for position, (label, (layers, style)) in enumerate(learners.items()):
                shares = [100 * float(changed_fraction(*layers[name], threshold=float(x))) for x in moved]
                width = line_width(position, len(learners))
                axes.plot(100 * moved.numpy(), shares, color=style.color, ls=style.line, lw=width, label=label)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_ylim(0, 102)
            axes.set_xlabel("moved by more than (% of a typical weight)")
            axes.set_title(name)
        label_rows(panels, "share of synapses (%)")
        legend_above(figure, panels[0])
    return figure


def synapses_changed(layers: Mapping[str, Mapping[str, tuple[Estimate, Series]]]) -> Figure:
    """Share of synapses that each experience changed, a panel for each layer.

    Args:
        layers: by layer and learner name, the estimates (experiences,) and their style.

    Example:
        >>> import torch
        >>> from lit_meta.report.style import run_series
        >>> line = (Estimate.of(torch.rand(2, 3)), run_series(0))
        >>> synapses_changed({"layers.0": {"EWC": line}}).axes[0].get_title(loc="left")
        'layers.0'
    """
    with styled():
        figure, panels = new_figure(len(layers), height=2.9)
        for axes, (name, learners) in zip(panels, layers.items(), strict=True):
            draw_lines(axes, learners)
            axes.set_ylim(0, 102)
            axes.set_xlabel("experience")
            axes.set_title(name)
        label_rows(panels, "synapses changed (%)")
        legend_above(figure, panels[0])
    return figure

"""Synapses changed by learning: maps, and shares along the stream."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from lit_meta.core.layers import weight_layers
from lit_meta.experiments.run import network_for_seed
from lit_meta.functional.weight_change import change_map, changed_fraction
from lit_meta.report.runs import Estimate, Run
from lit_meta.report.style import SEQUENTIAL, Series, new_figure, plain, styled
from lit_meta.streams.checkpoints import last_weights

_MAP_SIZE = (40, 64)


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


def weight_change_maps(learners: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> Figure:
    """Maps of the relative change from the initial to the final weights: a row per learner, a column per layer.

    Args:
        learners: by row title and layer name, the weights before and after.

    Example:
        >>> import torch
        >>> layers = {"layers.0": (torch.ones(3, 4), torch.zeros(3, 4))}
        >>> weight_change_maps({"EWC": layers}).axes[0].get_title(loc="left")
        'EWC: layers.0'
    """
    with styled():
        names = list(next(iter(learners.values())))
        figure, panels = new_figure(len(names), len(learners), height=0.5 + 2.1 * len(learners))
        maps = {
            (row, name): change_map(*pair, size=_MAP_SIZE)
            for row, layers in learners.items()
            for name, pair in layers.items()
        }
        for panel, ((row, name), change) in zip(panels, maps.items(), strict=True):
            # A layer has the same scale in all rows, so that rows can be compared.
            top = max(float(maps[other, name].max()) for other in learners)
            image = panel.imshow(
                change.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=top or 1.0, interpolation="none", aspect="auto"
            )
            plain(panel)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_title(f"{row}: {name}", fontsize=9)
            panel.set_xlabel("inputs")
            panel.set_ylabel("units")
            bar = figure.colorbar(image, ax=panel, label="relative change", fraction=0.05)
            bar.outline.set_visible(False)  # type: ignore[operator]
            bar.solids.set_rasterized(True)  # type: ignore[union-attr]
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
            for label, (share, style) in learners.items():
                x = range(1, len(share.mean) + 1)
                axes.fill_between(
                    x, 100 * share.low.numpy(), 100 * share.high.numpy(), color=style.color, alpha=0.18, lw=0
                )
                axes.plot(
                    x, 100 * share.mean.numpy(), color=style.color, marker=style.marker, ls=style.line, label=label
                )
            axes.set_ylim(0, 102)
            axes.set_xlabel("experience")
            axes.set_title(name)
        panels[0].set_ylabel("synapses changed (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), handlelength=3.6)
    return figure

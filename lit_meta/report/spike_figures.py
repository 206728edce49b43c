"""When the neurons of a spiking network fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from torch import Tensor

from lit_meta.report.style import INK, new_figure, styled

NEURONS = 120  # at most this many neurons of a layer are shown, evenly spaced


def spikes_raster(samples: Mapping[str, Mapping[str, Tensor]], classes: Sequence[str] = ()) -> Figure:
    """Spike rasters: a column for each sample, a row for each layer; a mark is a spike.

    Args:
        samples: by title, the result of `lit_meta.evaluation.activations.spike_raster`.
        classes: names of the output neurons; their numbers if empty.

    Example:
        >>> import torch
        >>> raster = {"input": torch.ones(4, 6), "output": torch.eye(4)[:, :3]}
        >>> spikes_raster({"an 8": raster}).axes[0].get_title(loc="left")
        'an 8'
    """
    with styled():
        layers = list(next(iter(samples.values())))
        figure, panels = new_figure(len(samples), len(layers), height=0.7 + 1.35 * len(layers))
        for column, (title, raster) in enumerate(samples.items()):
            for row, layer in enumerate(layers):
                axes = panels[row * len(samples) + column]
                spikes = raster[layer]
                steps, neurons = spikes.shape
                shown = np.unique(np.linspace(0, neurons - 1, min(neurons, NEURONS)).round().astype(int))
                when, which = np.nonzero(spikes.numpy()[:, shown])
                height = 0.42 if len(shown) <= 30 else 0.9
                # A single path for all marks takes a tenth of the space of a path for each.
                ends = np.stack([np.c_[when + 1, which - height], np.c_[when + 1, which + height]], axis=1)
                codes = np.tile([Outline.MOVETO, Outline.LINETO], len(when))
                if len(when):
                    axes.add_patch(PathPatch(Outline(ends.reshape(-1, 2), codes), color=INK, lw=1.3, fill=False))
                axes.set_xlim(0.3, steps + 0.7)
                axes.set_ylim(-1, len(shown))
                axes.grid(False)
                whole = len(shown) == neurons
                if layer == "output" and neurons <= 12:
                    axes.set_yticks(range(neurons), classes or [str(i) for i in range(neurons)], fontsize=6)
                else:
                    axes.set_yticks([])
                if row == 0:
                    axes.set_title(title)
                if column == 0:
                    axes.set_ylabel(layer if whole else f"{layer}\n({len(shown)} of {neurons})")
                if row == len(layers) - 1:
                    axes.set_xlabel("time step")
                else:
                    axes.set_xticklabels([])
    return figure

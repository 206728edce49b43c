"""Patch features as spikes: leaky integrate-and-fire neurons on patch layers, below a head that counts their spikes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.functional.spiking import LIFState, lif_step
from lit_meta.networks._build import class_count, image_shape, positive, samples, widths
from lit_meta.networks.patches import PatchConv2d, Precision, expand
from lit_meta.utils.validation import require_in, require_one_of

PatchEncoding = Literal["analog", "spikes"]


class SpikingPatchNet(nn.Module):
    """Patch features that spike over T steps, below a linear head on their firing rates.

    The image is applied as a constant current, so the patch layers run once and cost the multiplications of analog
    layers; from there on, only spikes are sent. The head integrates without a leak: every spike adds its column of weights,
    divided by T and by the neurons in a cell of the grid, so the output after T steps is a linear function of the rates and
    a `RecursiveReadout` learns it like any other head. With an ``expansion``, a second layer of such neurons is inserted:
    every spike of the patch layer adds its column of random weights to their currents, and the head counts their spikes.

    Input that is events over time already has its own form, ``encoding="spikes"``: each input leaves a trace,
    ``u ← max(trace · u, s)``, and the patch layers see the traces of every step (a time surface).

    Args:
        input_shape: (channels, height, width).
        filters: neurons at each position; a list for several layers, which all see the image, side by side.
        kernel: side of the patches; a list with one for each of these layers.
        classes: outputs, at least 2.
        grid: neurons of the same filter within a cell of a grid x grid share their weights to the layer above.
        steps: T, at least 1.
        decay: share of the membrane potential kept over a step, from 0 to 1.
        threshold: the potential above which a neuron fires, above 0.
        contrast: variance of a patch that counts as noise, above 0.
        stride: distance between patches.
        padding: pad the input, so that a map keeps its size.
        expansion: neurons of a `RandomExpansion` between the patch layer and the head; None puts the head on the patch layer.
        expansion_threshold: subtracted from the drive of these neurons, in its standard deviations.
        encoding: ``"analog"`` takes images; ``"spikes"`` takes events, (batch, steps, channels, height, width), a frame a step.
        trace: share of an event's trace kept over a step, from 0 (the events alone) to 1, with ``encoding="spikes"``.
        precision: of the weight layers and the membranes, ``"float32"`` or ``"bfloat16"``.
        seed: of the initial weights, drawn without touching the global random state; None draws them from it.

    Attributes:
        record_spikes: set to True to make every forward pass record `spike_counts`.
        spike_counts: by name of the weight layer (``"head"``, and ``"expansion"`` if there is one), (batch,): the spikes
            that each sample sent into it over all steps; each costs as many synaptic operations as the layer has outputs.

    Raises:
        ValueError: a size or a constant out of range, or an option without effect.

    Source:
        Time surfaces: Lagorce, Orchard, Galluppi, Shi and Benosman, "HOTS: a hierarchy of event-based time-surfaces for pattern
        recognition", IEEE TPAMI 39, 2017.

    Example:
        >>> network = SpikingPatchNet((1, 28, 28), filters=8, kernel=7, classes=10, seed=0)
        >>> network.record_spikes = True
        >>> network(torch.rand(2, 1, 28, 28)).shape, network.spike_counts["head"].shape
        (torch.Size([2, 10]), torch.Size([2]))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        filters: int | Sequence[int],
        kernel: int | Sequence[int],
        classes: int,
        *,
        grid: int = 4,
        steps: int = 20,
        decay: float = 0.9,
        threshold: float = 2.0,
        contrast: float = 0.01,
        stride: int = 1,
        padding: bool = True,
        expansion: int | None = None,
        expansion_threshold: float = 0.25,
        encoding: PatchEncoding = "analog",
        trace: float = 0.0,
        precision: Precision = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shape, self.classes = image_shape(input_shape), class_count(classes)
        maps = widths("filters", [filters] if isinstance(filters, int) else filters)
        sides = widths("kernel", [kernel] if isinstance(kernel, int) else kernel)
        if not maps or len(maps) != len(sides):
            raise ValueError(f"expected filters and kernel of equal length, got {filters} and {kernel}")
        if any(side % 2 == 0 for side in sides):
            raise ValueError(f"kernel must be odd, so that padding keeps maps in place, got {kernel}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {decay}")
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, got {threshold}")
        self.grid, self.steps = positive("grid", grid), positive("steps", steps)
        require_one_of("encoding", encoding, get_args(PatchEncoding))
        require_in("trace", trace, 0.0, 1.0)
        if trace and encoding == "analog":
            raise ValueError(f"trace={trace} acts on encoding='spikes' only")
        self.decay, self.threshold = decay, threshold
        self.encoding, self.trace = encoding, trace
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                PatchConv2d(
                    self.input_shape[0],
                    units,
                    side,
                    contrast=contrast,
                    stride=positive("stride", stride),
                    padding=padding,
                    precision=precision,
                )
                for units, side in zip(maps, sides, strict=True)
            )
            features = sum(maps) * grid * grid
            self.expansion = expand(features, expansion, expansion_threshold, precision)
            self.head = nn.Linear(expansion or features, self.classes)
        probe = torch.zeros(1, *self.input_shape)
        if min(layer(probe).shape[-1] for layer in self.layers) < grid:
            raise ValueError(f"the map is smaller than the grid {grid}: use a smaller stride")
        self.record_spikes = False
        self.spike_counts: dict[str, Tensor] = {}

    def features(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, features), the firing rates that the head sees, from 0 to 1."""
        trains = [self._fire(currents) for currents in self._currents(x)]
        if self.expansion is None:
            counts = [_total(train) for train in trains]
            fired = {"head": counts}
            rates = self._pool([count.float() / self.steps for count in counts])
        else:
            pooled: list[Tensor] = []
            totals: list[Tensor] = []
            for spikes in zip(*trains, strict=True):
                pooled.append(self._pool(spikes))
                totals = totals or [torch.zeros_like(of_layer) for of_layer in spikes]
                for total, of_layer in zip(totals, spikes, strict=True):
                    total += of_layer
            # The currents of all steps in one product.
            counts = [_total(self._fire(self.expansion(torch.stack(pooled))))]
            fired = {"expansion": totals, "head": counts}
            rates = counts[0].float() / self.steps
        self.spike_counts = {name: _per_sample(counts) for name, counts in fired.items()} if self.record_spikes else {}
        return rates

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, classes)."""
        return self.head(self.features(x))

    def _currents(self, x: Tensor) -> list[Iterable[Tensor]]:
        """(batch, ...) -> for each patch layer its outputs at every step."""
        if self.encoding == "analog":
            image = samples(x, self.input_shape)
            maps = [layer(image) for layer in self.layers]
            return [current.expand(self.steps, *current.shape) for current in maps]
        traces = self._traces(samples(x, (self.steps, *self.input_shape)))
        if torch.is_grad_enabled():  # A rule that learns the layers sees all steps at once.
            for layer in self.layers:
                layer(traces.flatten(0, 1), outputs=False)
        return [_each(layer, traces) for layer in self.layers]

    def _traces(self, events: Tensor) -> Tensor:
        """(batch, steps, ...) -> (steps, batch, ...), what each event leaves behind."""
        if not self.trace:
            return events.transpose(0, 1)
        traces = [events[:, 0]]
        for step in range(1, self.steps):
            traces.append(torch.maximum(self.trace * traces[-1], events[:, step]))
        return torch.stack(traces)

    def _fire(self, currents: Iterable[Tensor]) -> Iterator[Tensor]:
        """(steps, batch, ...) -> the spikes of each step."""
        state: LIFState | None = None
        for current in currents:
            spikes, state = lif_step(current, state, decay=self.decay, threshold=self.threshold)
            yield spikes

    def _pool(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(of_layer, self.grid).flatten(1) for of_layer in maps], dim=1)


def _each(layer: nn.Module, frames: Tensor) -> Iterator[Tensor]:
    """The layer's outputs for one frame after the other, without gradients, as its weights have none."""
    for frame in frames:
        with torch.no_grad():
            yield layer(frame)


def _total(spikes: Iterator[Tensor]) -> Tensor:
    counts = next(spikes).clone()
    for step in spikes:
        counts += step
    return counts


def _per_sample(counts: Sequence[Tensor]) -> Tensor:
    return torch.stack([of_layer.flatten(1).float().sum(1) for of_layer in counts]).sum(0)

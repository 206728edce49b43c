"""What spiking networks share: stepping, encoding, and training memory that does not grow with the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.local_steps import outside_rules
from lit_meta.functional.spiking import (
    LIFState,
    Surrogate,
    bernoulli_encode,
    encoding_thresholds,
    lif_step,
    threshold_encode,
)
from lit_meta.networks._build import make_output_activation, samples
from lit_meta.networks.gates import InputGate
from lit_meta.networks.spiking_options import Encoding, EncodingKind, LIFParameters
from lit_meta.utils.options import grouped

# The state of a layer's neurons, and the last spikes of the surrogate where those are not in it.
_Membrane = tuple[LIFState, Tensor | None]


class SpikingNetwork(nn.Module):
    """Layers of LIF neurons over T steps; the output is the firing rate ``(Σ_t S_t) / T`` of the last.

    Steps go through a layer several at a time: one matrix product for their currents, then the membranes one
    step after another. Under ``learning="last_step"`` steps 1 ... T − 1 leave no graph and the last one does,
    every weight layer running once with gradients enabled. The value returned is the rate, and its gradient
    goes to the last spike as it is, ``∂rate/∂S_T := 1``: the error ``(Σ_t S_t) / T − y`` is applied to S_T,
    as in the paper. With another ``detach`` than ``"state"`` that gradient also goes back to earlier steps of its own layer,
    whose currents are then recorded; the layer's hooks see steps 1 ... T − 1 together first, and the last one as before.
    ``learning="bptt"`` records every step, for comparison.

    In training, input spikes are drawn anew in every pass (from torch's global random state, like dropout).
    In evaluation thresholds are fixed by `encoding_seed` and shared by all samples, so that a prediction
    depends on its own sample alone.

    `LIFMLP` and `LIFConvNet` add the layers.

    Args:
        layers: the weight layers, in order.
        gate: of the hidden layers.
        neuron: `LIFParameters`, or a mapping of the fields that differ from the network's own.
        encoding: `Encoding`, a mapping of its fields, or a name.
        **flat: fields of `LIFParameters` and `Encoding`, as ``steps=5``.

    Attributes:
        record_spikes: set to True to have every forward pass leave `spike_counts`.
        spike_counts: by name of the weight layer, (batch,), the nonzero values each sample sent into it in
            the last pass, over all steps: what synaptic operations are counted from. Analog input is left
            out.
    """

    input_shape: tuple[int, ...]

    @grouped(neuron="", encoding="")
    def __init__(
        self,
        *,
        layers: nn.ModuleList,
        gate: InputGate,
        neuron: LIFParameters = LIFParameters(),
        encoding: Encoding | EncodingKind = Encoding(),
        **flat: Any,
    ) -> None:
        super().__init__()
        assert isinstance(encoding, Encoding)  # As `grouped` gives it.
        self.layers, self.gate = layers, gate
        self.current = make_output_activation(neuron.current)
        self.steps, self.steps_at_once, self.learning = neuron.steps, neuron.steps_at_once, neuron.learning
        self.decay, self.threshold, self.lens = neuron.decay, neuron.threshold, neuron.lens
        self.surrogate: Surrogate = neuron.surrogate
        self.detach, self.reset, self.surrogate_spike = neuron.detach, neuron.reset, neuron.surrogate_spike
        if gate.kind == "none" and "gated" in (self.reset, self.surrogate_spike):
            raise ValueError("reset='gated' and surrogate_spike='gated' have no effect without a gate: leave them out.")
        self.encoding, self.input_range = encoding.name, encoding.input_range
        self.encoding_seed = encoding.encoding_seed
        self.input_low, self.input_high = float(encoding.input_low), float(encoding.input_high)
        self.record_spikes = False
        self.spike_counts: dict[str, Tensor] = {}

    def _before(self, layer: int, signal: Tensor) -> Tensor:
        """From the spikes of a layer, (n, ...), to what the next one, `layers[layer]`, takes."""
        return signal.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) intensities, or (batch, steps, ...) spikes -> (batch, classes) firing rates, from 0 to 1."""
        if self.encoding == "spikes":
            if x.dim() < 3 or x.shape[1] != self.steps:
                raise ValueError(
                    f"encoding='spikes' takes one frame a step (batch, {self.steps}, *{self.input_shape}), got {tuple(x.shape)}"
                )
            x = samples(x.flatten(0, 1), self.input_shape).unflatten(0, (len(x), self.steps))
            intensity = x.mean(dim=1)
        else:
            x = intensity = samples(x, self.input_shape)
        # None for the readout, whose spikes are never gated.
        masks = [*self.gate(intensity.flatten(1)), *([None] * (len(self.layers) - len(self.gate.units)))]
        states: list[_Membrane | None] = [None] * len(self.layers)
        self.spike_counts = {}
        bounds = self._bounds(x)
        # Analog input does not change over the steps, so neither does the current of the first layer.
        first = self.current(self.layers[0](self._before(0, x))) if self.encoding == "analog" else None
        # At least single precision: under bfloat16 a count would stop at 256.
        precision = torch.promote_types(x.dtype, torch.float32)
        if self.learning == "bptt":
            return self._advance(x, first, bounds, masks, states, 0, self.steps).mean(dim=0, dtype=precision)
        if self.detach != "state" and torch.is_grad_enabled():
            spikes = self._through_time(x, first, bounds, masks)
            last = spikes[-1]
            return spikes.detach().mean(dim=0, dtype=precision) + (last - last.detach())
        spent = torch.zeros((), device=x.device, dtype=precision)
        with torch.no_grad():
            still = None if first is None else first.detach()
            for start in range(0, self.steps - 1, self.steps_at_once):
                count = min(self.steps_at_once, self.steps - 1 - start)
                spent = spent + self._advance(x, still, bounds, masks, states, start, count).sum(dim=0, dtype=precision)
        last = self._advance(x, first, bounds, masks, states, self.steps - 1, 1)[0]
        rate = (spent + last.detach()) / self.steps
        return rate + (last - last.detach())

    def _bounds(self, x: Tensor) -> tuple[float | Tensor, float | Tensor]:
        if self.encoding == "bernoulli" and self.input_range == "batch":
            return x.amin(), x.amax()
        return self.input_low, self.input_high

    def _encode(self, x: Tensor, bounds: tuple[float | Tensor, float | Tensor], start: int, count: int) -> Tensor:
        if self.encoding == "spikes":
            return x[:, start : start + count].transpose(0, 1)
        low, high = bounds
        if self.training:
            return bernoulli_encode(x, count, low=low, high=high)
        thresholds = encoding_thresholds(
            x.shape[1:], count, seed=self.encoding_seed, start=start, low=low, high=high, device=x.device
        )
        return threshold_encode(x, thresholds)

    def _advance(
        self,
        x: Tensor,
        first: Tensor | None,
        bounds: tuple[float | Tensor, float | Tensor],
        masks: Sequence[Tensor | None],
        states: list[_Membrane | None],
        start: int,
        count: int,
    ) -> Tensor:
        """Take `count` steps more, updating `states`; returns output spikes (count, batch, classes)."""
        signal = x
        for i, (layer, mask) in enumerate(zip(self.layers, masks, strict=True)):
            if i == 0 and first is not None:
                currents: Sequence[Tensor] = [first] * count
            else:
                if i == 0:
                    signal = self._encode(x, bounds, start, count)
                sent = self._sent(i, signal)
                # Unbound, not indexed: the backward pass of an index fills zeros for all steps at every step.
                currents = self.current(layer(sent)).unflatten(0, (count, len(x))).unbind(0)
            signals, states[i] = self._integrate(currents, states[i], mask)
            signal = torch.stack(signals)
        return signal

    def _through_time(
        self,
        x: Tensor,
        first: Tensor | None,
        bounds: tuple[float | Tensor, float | Tensor],
        masks: Sequence[Tensor | None],
    ) -> Tensor:
        """All steps with the graph of each layer's own membranes; output spikes (steps, batch, classes).

        The last step of a layer is a call of its own, which rules learn at; what earlier steps sent is a constant.
        """
        before = self.steps - 1
        early, last = x, x
        for i, (layer, mask) in enumerate(zip(self.layers, masks, strict=True)):
            if i == 0 and first is not None:
                currents: Sequence[Tensor] = [first] * self.steps
            else:
                if i == 0:
                    frames = self._encode(x, bounds, 0, self.steps)
                    early, last = frames[:before], frames[before:]
                currents = []
                if before:
                    with outside_rules():
                        steps = self.current(layer(self._sent(i, early)))
                    currents += steps.unflatten(0, (before, len(x))).unbind(0)
                currents.append(self.current(layer(self._sent(i, last))))
            signals, _ = self._integrate(currents, None, mask)
            signal = torch.stack([*(spikes.detach() for spikes in signals[:before]), signals[before]])
            early, last = signal[:before].detach(), signals[before][None]
        return signal

    def _sent(self, layer: int, signal: Tensor) -> Tensor:
        """What a layer takes, (steps * batch, ...), from the spikes below it, (steps, batch, ...)."""
        sent = self._before(layer, signal.flatten(0, 1))
        if self.record_spikes:
            self._record(f"layers.{layer}", sent, len(signal))
        return sent

    def _integrate(
        self, currents: Sequence[Tensor], membrane: _Membrane | None, mask: Tensor | None
    ) -> tuple[list[Tensor], _Membrane]:
        """The spikes that a layer sends for the currents of consecutive steps, and its membranes after them."""
        surrogate = self.surrogate if torch.is_grad_enabled() else None
        state, before = (None, None) if membrane is None else membrane
        signals = []
        for current in currents:
            fired, state = lif_step(
                current,
                state,
                decay=self.decay,
                threshold=self.threshold,
                surrogate=surrogate,
                lens=self.lens,
                before=before if surrogate == "stdp" else None,
            )
            # The gate closes the way out. By default the neuron itself has fired and is reset all the same.
            signal = fired if mask is None else fired * mask
            signals.append(signal)
            if mask is not None:
                if self.surrogate_spike != self.reset:
                    before = (signal if self.surrogate_spike == "gated" else fired).detach()
                if self.reset == "gated":
                    state = LIFState(state.potential, signal)
            if self.detach == "potential":
                state = LIFState(state.potential.detach(), state.spikes)
        assert state is not None
        return signals, (state, before)

    def _record(self, name: str, sent: Tensor, count: int) -> None:
        active = (sent.detach() != 0).flatten(1).sum(dim=1).unflatten(0, (count, -1)).sum(dim=0)
        self.spike_counts[name] = self.spike_counts[name] + active if name in self.spike_counts else active

    def extra_repr(self) -> str:
        return (
            f"steps={self.steps}, decay={self.decay}, threshold={self.threshold}, encoding={self.encoding}, "
            f"surrogate={self.surrogate}, lens={self.lens}, learning={self.learning}, detach={self.detach}, "
            f"reset={self.reset}, surrogate_spike={self.surrogate_spike}"
        )

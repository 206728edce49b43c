"""What spiking networks share: stepping, encoding, and training memory that does not grow with the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_meta.functional.spiking import (
    LIFState,
    Surrogate,
    bernoulli_encode,
    encoding_thresholds,
    lif_step,
    threshold_encode,
)
from lit_meta.networks._build import OutputActivation, make_output_activation, one_of, positive, samples
from lit_meta.networks.gates import InputGate
from lit_meta.utils.annotations import Options
from lit_meta.utils.options import grouped

EncodingKind = Literal["bernoulli", "analog", "spikes"]
Learning = Literal["last_step", "bptt"]
InputRange = Literal["fixed", "batch"]


@dataclass(frozen=True)
class LIFParameters(Options):
    """How the neurons of a `SpikingNetwork` integrate, fire and learn.

    ``V_t = decay · V_{t−1} (1 − S_{t−1}) + current(W x_t)``, ``S_t = [V_t > threshold]``, t = 1 ... steps.

    Attributes:
        steps: T, at least 1.
        decay: share of the membrane potential kept over a step, from 0 to 1.
        threshold: the potential above which a neuron fires.
        surrogate: derivative of the spike, ``"stdp"`` or ``"rectangular"``, as in `lif_step`.
        lens: reach of the surrogate around the threshold, in units of V, above 0.
        current: what a layer's weighted input passes before it reaches the membrane, ``"sigmoid"`` or ``"identity"``.
        learning: ``"last_step"`` or ``"bptt"``, as in `SpikingNetwork`.
        steps_at_once: steps through a layer together, a trade of memory for speed; ``"bptt"`` takes all at once.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range.
        TypeError: a number of steps that is not whole.

    Example:
        >>> LIFParameters(decay=1.5)
        Traceback (most recent call last):
        ...
        ValueError: decay must be from 0 to 1, got 1.5.
    """

    steps: int = 20
    decay: float = 0.2
    threshold: float = 0.5
    surrogate: Surrogate = "stdp"
    lens: float = 0.2
    current: OutputActivation = "sigmoid"
    learning: Learning = "last_step"
    steps_at_once: int = 5

    def __post_init__(self) -> None:
        one_of("surrogate", self.surrogate, Surrogate)
        one_of("learning", self.learning, Learning)
        one_of("output", self.current, OutputActivation)
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {self.decay}.")
        if not self.lens > 0:
            raise ValueError(f"lens must be positive, got {self.lens}.")
        positive("steps", self.steps)
        positive("steps_at_once", self.steps_at_once)


@dataclass(frozen=True)
class Encoding(Options):
    """How the input of a `SpikingNetwork` becomes spikes.

    Attributes:
        name: ``"bernoulli"`` turns intensities into spikes; ``"analog"`` applies them as they are at every step, so that
            the first layer runs once; ``"spikes"`` takes input that is spikes over time already, (batch, steps, ...), such
            as events in frames.
        input_low: the intensity that never fires (``"bernoulli"``).
        input_high: the intensity that always does.
        input_range: ``"fixed"``, or ``"batch"`` as in the published code: least and greatest value of each batch, so that a
            prediction depends on the rest of its batch. It takes the place of `input_low` and `input_high`.
        encoding_seed: chooses the thresholds of evaluation.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range, or an option without effect.
    """

    name: EncodingKind = "bernoulli"
    input_low: float = 0.0
    input_high: float = 1.0
    input_range: InputRange = "fixed"
    encoding_seed: int = 0

    def __post_init__(self) -> None:
        one_of("encoding", self.name, EncodingKind)
        one_of("input_range", self.input_range, InputRange)
        if not self.input_low < self.input_high:
            raise ValueError(f"input_low must be below input_high, got {self.input_low} and {self.input_high}.")
        if not 0 <= self.encoding_seed < 2**32:
            raise ValueError(f"encoding_seed must be from 0 to 2**32 - 1, got {self.encoding_seed}.")
        unused = self.name != "bernoulli" or self.input_range == "batch"
        if unused and (self.input_low, self.input_high) != (0.0, 1.0):
            raise ValueError("input_low and input_high act on encoding='bernoulli' with input_range='fixed' only.")
        if self.name != "bernoulli" and self.input_range == "batch":
            raise ValueError("input_range acts on encoding='bernoulli' only.")


class SpikingNetwork(nn.Module):
    """Layers of LIF neurons over T steps; the output is the firing rate ``(Σ_t S_t) / T`` of the last.

    Steps go through a layer several at a time: one matrix product for their currents, then the membranes one
    step after another. Under ``learning="last_step"`` steps 1 ... T − 1 leave no graph and the last one does,
    every weight layer running once with gradients enabled. The value returned is the rate, and its gradient
    goes to the last spike as it is, ``∂rate/∂S_T := 1``: the error ``(Σ_t S_t) / T − y`` is applied to S_T,
    as in the paper. ``learning="bptt"`` records every step, for comparison.

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
        states: list[LIFState | None] = [None] * len(self.layers)
        self.spike_counts = {}
        bounds = self._bounds(x)
        # Analog input does not change over the steps, so neither does the current of the first layer.
        first = self.current(self.layers[0](self._before(0, x))) if self.encoding == "analog" else None
        # At least single precision: under bfloat16 a count would stop at 256.
        precision = torch.promote_types(x.dtype, torch.float32)
        if self.learning == "bptt":
            return self._advance(x, first, bounds, masks, states, 0, self.steps).mean(dim=0, dtype=precision)
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
        states: list[LIFState | None],
        start: int,
        count: int,
    ) -> Tensor:
        """Take `count` steps more, updating `states`; returns output spikes (count, batch, classes)."""
        signal = x
        surrogate = self.surrogate if torch.is_grad_enabled() else None
        for i, (layer, mask) in enumerate(zip(self.layers, masks, strict=True)):
            if i == 0 and first is not None:
                currents: Sequence[Tensor] = [first] * count
            else:
                if i == 0:
                    signal = self._encode(x, bounds, start, count)
                sent = self._before(i, signal.flatten(0, 1))
                if self.record_spikes:
                    self._record(f"layers.{i}", sent, count)
                # Unbound, not indexed: the backward pass of an index fills zeros for all steps at every step.
                currents = self.current(layer(sent)).unflatten(0, (count, len(x))).unbind(0)
            spikes = []
            state = states[i]
            for current in currents:
                fired, state = lif_step(
                    current,
                    state,
                    decay=self.decay,
                    threshold=self.threshold,
                    surrogate=surrogate,
                    lens=self.lens,
                )
                spikes.append(fired)
            states[i] = state
            signal = torch.stack(spikes)
            if mask is not None:
                # The gate closes the way out; the neuron itself has fired and is reset all the same.
                signal = signal * mask
        return signal

    def _record(self, name: str, sent: Tensor, count: int) -> None:
        active = (sent.detach() != 0).flatten(1).sum(dim=1).unflatten(0, (count, -1)).sum(dim=0)
        self.spike_counts[name] = self.spike_counts[name] + active if name in self.spike_counts else active

    def extra_repr(self) -> str:
        return (
            f"steps={self.steps}, decay={self.decay}, threshold={self.threshold}, encoding={self.encoding}, "
            f"surrogate={self.surrogate}, lens={self.lens}, learning={self.learning}"
        )

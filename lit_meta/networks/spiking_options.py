"""Options of spiking networks: their neurons, and how their input becomes spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_meta.functional.spiking import Surrogate
from lit_meta.networks._build import OutputActivation, one_of, positive
from lit_meta.utils.annotations import Options

EncodingKind = Literal["bernoulli", "analog", "spikes"]
Learning = Literal["last_step", "bptt"]
InputRange = Literal["fixed", "batch"]
Detached = Literal["state", "potential", "none"]
Spike = Literal["fired", "gated"]


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
        detach: what a neuron's step takes over from the step before as a constant, under ``learning="last_step"``:
            ``"state"``, potential and spike, so that the gradient of the last spike goes to the last step alone;
            ``"potential"``, so that it also goes through the resets (1 − S) of earlier steps; ``"none"``, so that it also
            goes back along the membrane, which is backpropagation through time within the layer. In all three what other
            layers sent at earlier steps is a constant. The last two keep all steps for the backward pass.
        reset: the spike that resets the membrane of a gated layer: ``"fired"``, or ``"gated"``, what the gate lets
            through, so that the membranes of closed units are never reset.
        surrogate_spike: S_{t−1} of the surrogate ``"stdp"`` in a gated layer: ``"fired"``, or ``"gated"``, so that the
            surrogate of closed units, being 1 wherever the neuron fires, does not depend on the step before. A closed unit
            learns in neither case, its error being multiplied by its gate; a unit whose gate is half open does.

    Raises:
        KeyError: an unknown name for an option.
        ValueError: a value out of range, or an option without effect.
        TypeError: a number of steps that is not whole.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023, equations of the paper. The code published with it has, for
        streams of classes, ``detach="none", reset="gated", surrogate_spike="gated"`` and a bias of the output layer
        (``output_bias=True``), and for classification ``detach="potential"``.

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
    detach: Detached = "state"
    reset: Spike = "fired"
    surrogate_spike: Spike = "fired"

    def __post_init__(self) -> None:
        one_of("surrogate", self.surrogate, Surrogate)
        one_of("learning", self.learning, Learning)
        one_of("output", self.current, OutputActivation)
        one_of("detach", self.detach, Detached)
        one_of("reset", self.reset, Spike)
        one_of("surrogate_spike", self.surrogate_spike, Spike)
        if self.learning == "bptt" and self.detach != "state":
            raise ValueError("learning='bptt' detaches nothing: detach acts on learning='last_step' only.")
        if self.surrogate_spike == "gated" and self.surrogate != "stdp":
            raise ValueError(f"surrogate_spike acts on surrogate='stdp' only, got surrogate={self.surrogate!r}.")
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

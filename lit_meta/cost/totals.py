"""The cost of learning an experience as numbers that add up over a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from lit_meta.functional.cost import PICOJOULES_PER_ACCUMULATE, PICOJOULES_PER_MAC, energy

# Quantities that do not add up; the largest counts.
_PEAKS = ("state_bytes", "optimizer_bytes", "saved_bytes", "peak_memory_bytes")


@dataclass
class Cost:
    """Computation and memory of learning; all counts cover training steps only, not evaluation.

    Attributes:
        steps: optimizer steps.
        samples: samples seen, counted again in every epoch.
        forward_macs: multiply-accumulates of the weight layers' forward passes, dense, as a library computes them.
        backward_macs: those of backpropagation: one product for a layer's weight gradient and one for its input gradient,
            where autograd computes them (never the input gradient of the first layer).
        local_macs: those of weight gradients from local errors, dense; a local rule computes no input gradient.
        local_operations: the part of `local_macs` with a nonzero input and an open (ungated) unit.
        local_accumulates: the part of `local_operations` whose input is a spike.
        analog_macs: the part of `forward_macs` whose input is not spikes, which event-driven hardware cannot save.
        synaptic_operations: nonzero inputs of spike-driven layers times their fan-out, in place of their forward MACs.
        lif_updates: membrane updates, one MAC per neuron and step.
        weight_updates: parameters that the optimizer updated, over all steps: one operation each.
        rule_operations: elementwise operations and MACs inside the rules' own events, consolidation included.
        energy_joules: estimated energy of all of these; see `Cost.set_energy`.
        published_operations: NACA's own convention (`lit_meta.functional.cost.published_operations`); None if it is not
            defined for the network or the rule.
        state_bytes: size of the rules' memory.
        optimizer_bytes: size of the optimizer's memory.
        saved_bytes: what autograd kept for the backward pass of one step, parameters excluded.
        peak_memory_bytes: peak memory that the accelerator held for tensors, or that the process held.
        seconds: from the start of training to the end of consolidation.
    """

    steps: int = 0
    samples: int = 0
    forward_macs: int = 0
    backward_macs: int = 0
    local_macs: int = 0
    local_operations: int = 0
    local_accumulates: int = 0
    analog_macs: int = 0
    synaptic_operations: int = 0
    lif_updates: int = 0
    weight_updates: int = 0
    rule_operations: int = 0
    energy_joules: float = 0.0
    published_operations: float | None = None
    state_bytes: int = 0
    optimizer_bytes: int = 0
    saved_bytes: int = 0
    peak_memory_bytes: int | None = None
    seconds: float = 0.0

    def set_energy(
        self,
        *,
        picojoules_per_mac: float = PICOJOULES_PER_MAC,
        picojoules_per_accumulate: float = PICOJOULES_PER_ACCUMULATE,
    ) -> None:
        """Sets `energy_joules` from the counts.

        MACs: analog forward passes, LIF updates, backpropagation, local learning whose input is not a spike, weight updates
        and the rules' operations. Accumulates: synaptic operations and local learning whose input is a spike. Spikes were
        counted one by one, so no spike rate is applied on top.

        Args:
            picojoules_per_mac: energy of a multiply-accumulate.
            picojoules_per_accumulate: energy of an accumulate.

        Example:
            >>> cost = Cost(forward_macs=10**12, analog_macs=10**12, local_operations=10**12, local_accumulates=10**12)
            >>> cost.set_energy()
            >>> cost.energy_joules
            5.5
        """
        macs = (
            self.analog_macs
            + self.lif_updates
            + self.backward_macs
            + self.local_operations
            - self.local_accumulates
            + self.weight_updates
            + self.rule_operations
        )
        self.energy_joules = energy(
            macs,
            self.synaptic_operations + self.local_accumulates,
            picojoules_per_mac=picojoules_per_mac,
            picojoules_per_accumulate=picojoules_per_accumulate,
        )

    def __add__(self, other: Cost) -> Cost:
        """The sum of counts and seconds, and the larger of two memory sizes."""
        total = Cost()
        for name in (f.name for f in fields(Cost)):
            left, right = getattr(self, name), getattr(other, name)
            if left is None or right is None:
                setattr(total, name, None)
            else:
                setattr(total, name, max(left, right) if name in _PEAKS else left + right)
        return total

    def to_dict(self) -> dict[str, float]:
        """The quantities that have a value, as plain numbers.

        Example:
            >>> Cost(steps=3).to_dict()["steps"]
            3
        """
        return {name: value for name, value in asdict(self).items() if value is not None}

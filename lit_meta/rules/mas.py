"""Memory aware synapses: a synapse stiffens by how much the network's output depends on it, whatever the labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.rule import Experience, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional.sensitivity import output_sensitivity
from lit_meta.rules._importance import Part, averaged, task_parts
from lit_meta.rules._penalty import PenaltyRule
from lit_meta.utils.validation import require_count, require_in


class MAS(PenaltyRule):
    r"""Memory aware synapses, at the boundaries of experiences or along a stream.

    Importance is the sensitivity of the squared norm of the output f, averaged over samples,

    .. math:: Ω_i = E\left|\frac{\partial \|f(x)\|^2}{\partial θ_i}\right|

    and the penalty ½ · strength · Σ Ω (θ − θ*)². No label is read. f is what the network gives when the training step runs it,
    of whatever shape (where it has ``logits``, these). The paper's penalty is λ Σ Ω (θ − θ*)², without the ½:
    ``strength`` = 2λ.

    - ``interval=None``: after each experience, on its data; Ω ← decay · Ω + new, and θ* is the latest.
    - ``interval=k``: without any boundary. Before every k-th training batch, the sensitivity on its inputs is added as a
      penalty of its own at the present parameters: Ω ← decay · Ω + new, θ* ← the mean of all such points, weighted by their
      importance. The streamed form is ours; the paper consolidates between tasks. A measurement costs about one more
      forward and backward pass.

    Args:
        strength: 2λ, at least 0.
        decay: factor on older importances, in [0, 1].
        samples: use this many samples, drawn from all of an experience (or the first of a batch, where streamed); None for all.
        interval: training batches from one measurement to the next, None for boundaries.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Aljundi et al., ECCV 2018, equations 2 to 5, the global form. The absolute value is taken of each sample's gradient, as
        there; code that takes it of a batch's mean gradient gets importances that shrink as batches grow.

    Example:
        >>> MAS(strength=2.0)
        MAS(strength=2.0, decay=1.0, samples=None, interval=None)
    """

    def __init__(
        self, *, strength: float = 1.0, decay: float = 1.0, samples: int | None = None, interval: int | None = None
    ) -> None:
        super().__init__(strength=strength)
        require_in("decay", decay, 0.0, 1.0)
        for name, value in (("samples", samples), ("interval", interval)):
            if value is not None:
                require_count(name, value)
        self.decay = decay
        self.samples = self.samples_read = samples
        self.interval = interval
        self.needs_boundaries = interval is None
        self.needs_inputs = interval is not None

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        streamed = {} if self.interval is None else {"batches/*": Kept(())}
        return {**super().remembers(network), **streamed}

    def overrides(self, event: str) -> bool:
        # Each of the two forms answers one of these events; the other must have no overhead.
        if event == "before_forward":
            return self.interval is not None
        if event in ("rehearse", "end_experience"):
            return self.interval is None
        return super().overrides(event)

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        if "batches" not in self.state:
            self.state.overall["batches"] = torch.zeros((), dtype=torch.long)
        count = self.state.overall["batches"] = self.state.overall["batches"] + 1
        if self.interval is not None and int(count) % self.interval == 0:
            sensitivities = output_sensitivity(synapses.network, inputs[: self.samples], names=synapses.names)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                for tensor in sensitivities.values():
                    torch.distributed.all_reduce(tensor)
                    tensor /= torch.distributed.get_world_size()
            self.consolidate(synapses, sensitivities, decay=self.decay, merge=True)

    def rehearse(self, synapses: Synapses, experience: Experience) -> None:
        for _ in self._sensitivities(synapses, experience):
            pass

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        importances = averaged(
            synapses, self._sensitivities(synapses, experience), "MAS", protects="importance" in self.state
        )
        self.consolidate(synapses, importances, decay=self.decay)

    def _sensitivities(self, synapses: Synapses, experience: Experience) -> Iterator[Part]:
        """Batch by batch the sensitivity, and of how many samples it is."""
        if experience.calls_on_inputs():
            for inputs, _ in experience.pairs(samples=self.samples):
                yield output_sensitivity(experience.network, inputs, names=synapses.names), inputs.shape[0]
            return

        def squared_norm(batch: Any) -> Tensor:
            return torch.stack([output.square().sum() for output in experience.outputs(batch)]).sum()

        yield from task_parts(experience, synapses, squared_norm, power=1, samples=self.samples)

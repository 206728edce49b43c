"""Synaptic intelligence: a synapse stiffens by what its own changes contributed to the fall of the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.core._buffers import Scratch
from lit_meta.core.rule import Experience, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.rules._penalty import PenaltyRule
from lit_meta.utils.validation import require_in


class SI(PenaltyRule):
    r"""Synaptic intelligence: importance as a path integral along the trajectory of learning.

    During an experience, every synapse sums the decrease of the task's loss that its own steps contribute,

    .. math:: ω_i \leftarrow ω_i - g_i \, Δθ_i

    (g the gradient of the task's loss alone, Δθ the optimizer's whole step, penalty included). At its end

    .. math:: Ω_i \leftarrow \max\!\left(0,\; decay \, Ω_i + \frac{ω_i}{(θ_i - θ_i^{start})^2 + damping}\right)

    and further learning is pulled back to the parameters of that moment by ½ · strength · Σ Ω (θ − θ*)².

    The paper's penalty is c Σ Ω (θ − θ*)², without the ½: ``strength`` = 2c. g is read before any penalty is added to it, so
    among several rules SI must stand before those that change gradients; their pull is then part of Δθ, as its own is.

    Args:
        strength: 2c, at least 0.
        damping: ξ, above 0; bounds the importance of a synapse that ended where it began. In squared units of a parameter.
        decay: factor on the importance of earlier experiences, in [0, 1]; 1 as in the paper.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Zenke, Poole, Ganguli, ICML 2017, equations 3 to 5. That Ω is not allowed below 0 (a synapse whose changes raised the
        loss would else be pushed away from its value) is not in the text but in the authors' code.

    Example:
        >>> SI(strength=0.2, damping=0.1)
        SI(strength=0.2, damping=0.1, decay=1.0)
    """

    needs_boundaries = True
    needs_data = False
    reads_task_gradient = True

    def __init__(self, *, strength: float = 0.2, damping: float = 0.1, decay: float = 1.0) -> None:
        super().__init__(strength=strength)
        require_in("damping", damping, 0.0, float("inf"), open_low=True)
        require_in("decay", decay, 0.0, 1.0)
        self.damping = damping
        self.decay = decay
        self._copies = Scratch()
        self._task_gradient: dict[str, Tensor] = {}
        self._travelled: tuple[tuple[str, ...], list[Tensor], list[Tensor]] | None = None

    def begin_experience(self, synapses: Synapses) -> None:
        pairs = list(zip(synapses.names, synapses.parameters, strict=True))
        self.state["start"] = {n: p.detach().clone() for n, p in pairs}
        self.state["path"] = {n: torch.zeros_like(p) for n, p in pairs}

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {
            **super().remembers(network),
            **kept_of_parameters(network, "start"),
            **kept_of_parameters(network, "path"),
        }

    def join(self, synapses: Synapses) -> None:
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            self.state["start"][name] = parameter.detach().clone()
            self.state["path"][name] = torch.zeros_like(parameter)

    def gradient(self, synapses: Synapses) -> None:
        copies = self._copies.copy(synapses.names, synapses.gradients)
        self._task_gradient.update(zip(synapses.names, copies, strict=True))
        super().gradient(synapses)

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        gradients = [self._task_gradient.pop(name) for name in synapses.names]
        change = self._differences.copy(synapses.names, synapses.parameters)
        torch._foreach_sub_(change, before)
        self._travelled = synapses.names, gradients, change

    def commit(self, synapses: Synapses) -> None:
        if self._travelled is not None:
            names, gradients, change = self._travelled
            self._travelled = None
            torch._foreach_addcmul_(self.state.tensors("path", names), gradients, change, value=-1.0)

    def restore(self, synapses: Synapses) -> None:
        self._task_gradient.clear()
        self._travelled = None

    def end_experience(self, synapses: Synapses, experience: Experience) -> None:
        starts, paths = self.state.tensors("start", synapses.names), self.state.tensors("path", synapses.names)
        importances = {}
        for name, parameter, start, path in zip(synapses.names, synapses.parameters, starts, paths, strict=True):
            importances[name] = path / ((parameter.detach() - start).square() + self.damping)
        self.consolidate(synapses, importances, decay=self.decay)
        for importance in self.state.tensors("importance", synapses.names):
            importance.clamp_(min=0.0)

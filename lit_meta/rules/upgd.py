"""Utility-based perturbed gradient descent: what is useful is protected, what is not is kept plastic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_meta.core._buffers import Scratch
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, apart, kept_of_parameters
from lit_meta.rules._randomness import draw_normal
from lit_meta.utils.validation import require_in


class UPGD(Rule):
    r"""Utility-based perturbed gradient descent, first order, weight by weight, scaled by the global maximum.

    The utility of a synapse is the estimated rise of the loss were it set to 0,

    .. math:: U \leftarrow decay \, U - (1 - decay) \, g \, θ, \qquad Û = U / (1 - decay^t)

    and the gradient handed to the optimizer is

    .. math:: 2 \, (g + ξ) \, (1 - σ(Û / \max Û)), \qquad ξ \sim N(0, noise^2)

    (σ the logistic, the maximum over all parameters of the optimizer). With plain `torch.optim.SGD`, whose ``weight_decay``
    is the paper's, that is UPGD; a synapse of no utility learns as in SGD, the most useful one at 0.54 of that, without
    noise or with. With another optimizer it is that optimizer on the gated, noisy gradient.

    Args:
        decay: β_u of the running utility, in [0, 1).
        noise: standard deviation of ξ, at least 0, in units of a gradient.
        seed: of ξ.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Elsayed & Mahmood, ICLR 2024 (arXiv 2404.00781), algorithm 1. The factor 2 is the authors' code's; the paper leaves it
        to the step size. Where no synapse has positive utility the quotient is taken with the smallest positive number, so
        that all stay plastic; there the paper's is undefined. The authors' code divides by the maximum of U, not of Û.

    Example:
        >>> UPGD(noise=0.001)
        UPGD(decay=0.999, noise=0.001, seed=0)
    """

    stages_memory = True

    def __init__(self, *, decay: float = 0.999, noise: float = 0.001, seed: int = 0) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay!r}")
        require_in("noise", noise, 0.0, float("inf"))
        self.decay = decay
        self.noise = noise
        self.seed = seed
        self._renewed = Scratch()
        self._gates = Scratch()
        self._staged: tuple[tuple[str, ...], list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def gradient(self, synapses: Synapses) -> None:
        self._prepare(synapses)
        gradients, parameters = synapses.gradients, [p.detach() for p in synapses.parameters]
        # A step that fails is undone, so the memory itself is not touched before it is certain.
        before = self.state.tensors("utility", synapses.names)
        utilities = self._renewed.empty(synapses.names, before)
        for utility, old in zip(utilities, before, strict=True):
            torch.mul(old, self.decay, out=utility)
        counts = [c.clone() for c in self.state.tensors("weight", [apart(name) for name in synapses.names])]
        torch._foreach_addcmul_(utilities, gradients, parameters, value=self.decay - 1.0)
        # 1 − decay^t as a running mean of ones: no step counter has to leave the device.
        torch._foreach_mul_(counts, self.decay)
        torch._foreach_add_(counts, 1.0 - self.decay)
        self._staged = synapses.names, utilities, counts
        gates = self._gates.empty(synapses.names, utilities)
        for gate, utility, count in zip(gates, utilities, counts, strict=True):
            torch.div(utility, count.to(gate.dtype), out=gate)
        largest = torch.stack([gate.max() for gate in gates]).max()
        largest.clamp_(min=torch.finfo(largest.dtype).tiny)
        for gate in gates:
            gate.div_(largest)
        torch._foreach_neg_(gates)
        torch._foreach_sigmoid_(gates)  # 1 − σ(u) = σ(−u)
        torch._foreach_mul_(gates, 2.0)
        if self.noise:
            torch._foreach_add_(gradients, draw_normal(self.state, gradients, self.seed), alpha=self.noise)
        torch._foreach_mul_(gradients, gates)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        utilities = kept_of_parameters(network, "utility", nonzero=True)
        names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        weights = {encode_key("weight", apart(name)): Kept((), nonzero=True) for name in names}
        noise = {"generator/*": Kept((None,), nonzero=True)} if self.noise else {}
        return {**utilities, **weights, **noise}

    def commit(self, synapses: Synapses) -> None:
        if self._staged is None:
            return
        (names, utilities, counts), self._staged = self._staged, None
        self._renewed.exchange(names, self.state.tensors("utility", names))
        self.state["utility"] = {**self.state["utility"], **dict(zip(names, utilities, strict=True))}
        self.state["weight"] = {**self.state["weight"], **dict(zip(map(apart, names), counts, strict=True))}

    def restore(self, synapses: Synapses) -> None:
        self._staged = None

    def _prepare(self, synapses: Synapses) -> None:
        utilities = dict(self.state["utility"]) if "utility" in self.state else {}
        if all(name in utilities for name in synapses.names):
            return
        weights = dict(self.state["weight"]) if "weight" in self.state else {}
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            if name not in utilities:
                utilities[name] = torch.zeros_like(parameter, requires_grad=False)
                weights[apart(name)] = torch.zeros((), device=parameter.device)
        self.state["utility"], self.state["weight"] = utilities, weights

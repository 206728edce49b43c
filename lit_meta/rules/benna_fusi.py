"""The cascade of Benna and Fusi: a synapse as a chain of beakers, each slower than the one before."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.utils.validation import require_in


class BennaFusi(Rule):
    r"""The complex synapse of Benna and Fusi: K variables at K time scales, the first of them the weight.

    .. math:: C_k \, \dot u_k = g_{k-1} (u_{k-1} - u_k) + g_k (u_{k+1} - u_k), \quad
              C_k = 2^{k-1}, \; g_k = rate \cdot 2^{-(k-1)}

    u_1 is the parameter; learning enters there, by the optimizer's step. After each step all variables advance by one Euler
    step: recent changes leak towards deeper, slower variables, which pull the weight back to its past. Time
    constants grow as C_k / g_k = 4^{k-1} / rate steps, so K variables remember over about 4^{K-1} / rate steps. The chain
    starts in equilibrium, all variables at the parameter's value. No boundary and no task label is used.

    Without a leak the flows conserve Σ C_k u_k; with one the last beaker also loses g_K u_K to the ground.

    Args:
        variables: K, at least 2. The state holds u_2 to u_K.
        rate: g_1, in (0, 1]; the share of the difference between weight and second variable that flows in one step. Euler
            steps are stable for any such rate.
        leak: whether the last variable decays to 0.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Benna & Fusi, Nature Neuroscience 19, 2016, equation 1 and its supplement; in deep networks: Kaplanis, Shanahan,
        Clopath, ICML 2018. There the learning rate scales the flows too; here ``rate`` alone does, whatever the optimizer.

    Example:
        >>> BennaFusi(variables=4)
        BennaFusi(variables=4, rate=0.01, leak=False)
    """

    def __init__(self, *, variables: int = 4, rate: float = 0.01, leak: bool = False) -> None:
        super().__init__()
        if isinstance(variables, bool) or not isinstance(variables, int) or variables < 2:
            raise ValueError(f"variables must be an integer of at least 2, got {variables!r}")
        require_in("rate", rate, 0.0, 1.0, open_low=True)
        self.variables = variables
        self.rate = rate
        self.leak = leak
        for quantity in self._quantities:
            self.state.fills[quantity] = float("nan")

    @property
    def _quantities(self) -> list[str]:
        return [f"variable-{k}" for k in range(2, self.variables + 1)]

    def begin_experience(self, synapses: Synapses) -> None:
        for quantity in self._quantities:
            levels = dict(self.state[quantity]) if quantity in self.state else {}
            for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
                value = parameter.detach()
                # New entries, such as the rows of a head that has grown, start in equilibrium too.
                levels[name] = (
                    torch.where(levels[name].isnan(), value, levels[name]) if name in levels else value.clone()
                )
            self.state[quantity] = levels

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        kept: dict[str, Kept] = {}
        for quantity in self._quantities:
            kept |= kept_of_parameters(network, quantity, nonzero=True)
        return kept

    def join(self, synapses: Synapses) -> None:
        self.begin_experience(synapses)

    def update(self, synapses: Synapses, before: list[Tensor]) -> None:
        chain = [[p.detach() for p in synapses.parameters]]
        chain += [self.state.tensors(quantity, synapses.names) for quantity in self._quantities]
        flows = []  # Into each variable from the one after it; all from the values before the step.
        for k, (upper, lower) in enumerate(pairwise(chain)):
            flow = torch._foreach_sub(lower, upper)
            torch._foreach_mul_(flow, self.rate * 0.5**k)
            flows.append(flow)
        if self.leak:
            torch._foreach_mul_(chain[-1], 1.0 - self.rate * 0.25 ** (self.variables - 1))
        for k, flow in enumerate(flows):
            torch._foreach_add_(chain[k], flow, alpha=0.5**k)
            torch._foreach_add_(chain[k + 1], flow, alpha=-(0.5 ** (k + 1)))

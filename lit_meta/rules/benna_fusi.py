"""The cascade of Benna and Fusi: a synapse as a chain of beakers, each slower than the one before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_meta.core.rule import Rule, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.utils.validation import require_count, require_in


class BennaFusi(Rule):
    r"""The complex synapse of Benna and Fusi: K variables at K time scales, the first of them the weight.

    .. math:: C_k \, \dot u_k = g_{k-1} (u_{k-1} - u_k) + g_k (u_{k+1} - u_k), \quad
              C_k = 2^{k-1}, \; g_k = rate \cdot 2^{-(k-1)}

    u_1 is the parameter; learning enters there, by the optimizer's step. After each step all variables advance by one Euler
    step: recent changes leak towards deeper, slower variables, which pull the weight back to its past. Time
    constants grow as C_k / g_k = 4^{k-1} / rate steps, so K variables remember over about 4^{K-1} / rate steps. The chain
    starts in equilibrium, all variables at the parameter's value. No boundary and no task label is used.

    Without a leak the flows conserve Σ C_k u_k; with one the last beaker also loses g_K u_K to the ground. `flows` and `areas`
    give g_k and C_k one by one: the comparison of Laborieux et al. (Nature Communications 12, 2549, 2021) has four
    beakers with ``areas=[1, 2, 4, 8]`` and ``flows=[1e-2, 1e-3, 1e-4, 1e-5]``, the last of them the leak.

    Args:
        variables: K, at least 2. The state holds u_2 to u_K.
        rate: g_1, in (0, 1]; the share of the difference between weight and second variable that flows in one step. Euler
            steps are stable for any such rate.
        leak: whether the last variable decays to 0.
        flows: g_k in place of ``rate · 2^{-(k-1)}``: K − 1 numbers in (0, 1], or K with a leak.
        areas: C_k in place of ``2^{k-1}``: K numbers of at least 1.

    Raises:
        ValueError: a hyperparameter out of range.

    Source:
        Benna & Fusi, Nature Neuroscience 19, 2016, equation 1 and its supplement; in deep networks: Kaplanis, Shanahan,
        Clopath, ICML 2018. There the learning rate scales the flows too; here ``rate`` alone does, whatever the optimizer.

    Example:
        >>> BennaFusi(variables=4)
        BennaFusi(variables=4, rate=0.01, leak=False, flows=None, areas=None)
    """

    stages_memory = True

    def __init__(
        self,
        *,
        variables: int = 4,
        rate: float = 0.01,
        leak: bool = False,
        flows: Sequence[float] | None = None,
        areas: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require_count("variables", variables, 2)
        require_in("rate", rate, 0.0, 1.0, open_low=True)
        self.variables = variables
        self.rate = rate
        self.leak = leak
        if flows is not None:
            if rate != 0.01:
                raise ValueError(f"rate={rate} has no effect beside flows: leave one of them out")
            _check("flows", flows, variables if leak else variables - 1)
            if not all(0.0 < g <= 1.0 for g in flows):
                raise ValueError(f"flows must be above 0 and at most 1, got {list(flows)}")
        if areas is not None:
            _check("areas", areas, variables)
            if not all(1.0 <= c < float("inf") for c in areas):
                raise ValueError(f"areas must be finite numbers of at least 1, got {list(areas)}")
        self.flows = flows
        self.areas = areas
        self._g = [rate * 0.5**k for k in range(variables)] if flows is None else [float(g) for g in flows]
        self._c = [2.0**k for k in range(variables)] if areas is None else [float(c) for c in areas]
        self._staged: list[tuple[Tensor, ...]] = []
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
            torch._foreach_mul_(flow, self._g[k])
            flows.append(flow)
        torch._foreach_add_(chain[0], flows[0], alpha=1.0 / self._c[0])
        self._staged = flows

    def commit(self, synapses: Synapses) -> None:
        if not self._staged:
            return
        flows, self._staged = self._staged, []
        deeper = [self.state.tensors(quantity, synapses.names) for quantity in self._quantities]
        if self.leak:
            torch._foreach_mul_(deeper[-1], 1.0 - self._g[-1] / self._c[-1])
        for k, flow in enumerate(flows):
            if k:
                torch._foreach_add_(deeper[k - 1], flow, alpha=1.0 / self._c[k])
            torch._foreach_add_(deeper[k], flow, alpha=-1.0 / self._c[k + 1])

    def restore(self, synapses: Synapses) -> None:
        self._staged = []


def _check(name: str, values: Sequence[float], count: int) -> None:
    if isinstance(values, str) or len(values) != count or not all(isinstance(v, (int, float)) for v in values):
        raise ValueError(
            f"{name} must be {count} numbers, one for each beaker (the last flow is the leak), got {values!r}"
        )

"""Base class of rules that keep a Gaussian for every synapse and learn with weights drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_meta.core.rule import Experience, Rule, Synapses
from lit_meta.core.state import Kept, kept_of_parameters
from lit_meta.rules._draws import FurtherDraws
from lit_meta.rules._randomness import draw_normal
from lit_meta.utils.validation import require_count, require_in, require_one_of

# Argument and result of fused operations.
Tensors = list[Tensor] | tuple[Tensor, ...]


class GaussianRule(Rule):
    r"""A synapse is a Gaussian with mean μ and deviation σ; every forward pass of training uses θ = μ + σ ε, ε ~ N(0, 1).

    The parameters of the network are μ at all times except between `before_forward` and `after_backward`: evaluation,
    checkpoints and other code see the mean. From the gradients g of the sampled passes the rule estimates E[g] and E[g ε]
    and updates μ and σ itself; the optimizer, its learning rate and the host's gradient clipping have no effect.

    Both expectations are means over ``draws`` draws of the weights, all with the same data; the first is the host's own pass,
    the others run the training step's loss again. The variance of E[g ε], in units of that of one draw, falls to 1/k: 0.125 at
    k = 8. With ``antithetic`` every second draw is the mirror image −ε of the one before, so that the part of g that is the
    same for both cancels in E[g ε]: two such draws give 0.355. Where the loss is the cross-entropy of ``network(inputs)`` and
    PyTorch can take the network through `torch.func.vmap`, all further draws are one batched product.

    When gradients are accumulated, every pass draws new weights, each for its part of the batch only: the parts of
    a batch are not draws of the whole batch (eight parts give 0.45).

    The likelihood of a step's data is that of all its samples together. With ``loss_reduction="mean"`` (a loss that is a mean
    over the batch) gradients are multiplied by the number of samples; with ``"sum"`` they are used unscaled. A host's division
    of the loss of accumulated passes (Lightning: by ``accumulate_grad_batches``, however many passes there are before the step)
    is undone. A host that does not report its divisor (a loop of your own, manual optimization) is expected to divide a mean by
    the number of passes, and not to divide a sum.

    The state holds ``"deviation"`` σ and the state of the random ``"generator"``.

    Args:
        deviation: σ at the start, above 0, in units of a parameter.
        loss_reduction: how the host's loss reduces over the batch.
        draws: k, draws of the weights in one pass, at least 1.
        antithetic: whether draws come in mirrored pairs; k must be even.
        seed: of ε.
        scale: ``"absolute"``, or ``"fan-in"``: σ at the start is ``deviation`` / √fan-in of the parameter's layer.
    """

    needs_inputs = False
    makes_update = True
    stages_memory = True
    limits: ClassVar[Mapping[str, str]] = {"fp16": "gradients of a scaled loss would be mistaken for those of the loss"}

    def __init__(
        self,
        *,
        deviation: float,
        loss_reduction: Literal["mean", "sum"],
        draws: int,
        antithetic: bool,
        seed: int,
        scale: Literal["absolute", "fan-in"] = "absolute",
    ) -> None:
        super().__init__()
        require_count("draws", draws)
        if antithetic and draws % 2:
            raise ValueError(f"antithetic draws come in pairs, so draws must be even, got {draws}")
        self.draws = draws
        self.antithetic = antithetic
        require_in("deviation", deviation, 0.0, float("inf"), open_low=True)
        require_one_of("loss_reduction", loss_reduction, ("mean", "sum"))
        self.deviation = deviation
        self.loss_reduction = loss_reduction
        self.seed = seed
        require_one_of("scale", scale, ("absolute", "fan-in"))
        self.scale = scale
        # Entries that a parameter has gained; with a scale of its own for each, they are set when the experience begins.
        self.state.fills["deviation"] = deviation if scale == "absolute" else float("nan")
        self._mean: tuple[list[Tensor], list[Tensor]] | None = None
        self._noise: list[Tensor] = []
        self._stepped = True
        self._passes = 0
        self._samples = 0
        self._batch = 0
        self._previous: dict[str, Tensor] = {}
        self._correlation: dict[str, Tensor] = {}
        self._moves: tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]] | None = None
        self._first: list[Tensor] = []
        self._further = FurtherDraws()

    def move(
        self, means: list[Tensor], deviations: list[Tensor], gradients: list[Tensor], correlations: list[Tensor]
    ) -> None:
        """Changes μ and σ in place.

        Args:
            means: μ, the parameters.
            deviations: σ.
            gradients: E[g], g the gradient of the negative log-likelihood of the step's data. May be overwritten.
            correlations: E[g ε] = ∂E[−log-likelihood]/∂σ. May be overwritten.
        """
        raise NotImplementedError

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        return {**kept_of_parameters(network, "deviation", nonzero=True), "generator/*": Kept((None,), nonzero=True)}

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        if self._stepped:
            self._begin_step()
        self._previous = {}
        if self._passes:
            pairs = zip(synapses.names, synapses.parameters, strict=True)
            self._previous = {n: p.grad.clone() for n, p in pairs if p.grad is not None}
        deviations = self._deviations(synapses)
        parameters = [p.detach() for p in synapses.parameters]
        self._noise = draw_normal(self.state, parameters, self.seed)
        self._mean = (parameters, [p.clone() for p in parameters])
        self._batch = inputs.shape[0]
        torch._foreach_addcmul_(parameters, self._noise, deviations)

    def after_backward(self, synapses: Synapses) -> None:
        if self._mean is None:
            raise ValueError(f"{type(self).__name__} got a backward pass without before_forward")
        self._unperturb()
        self._passes += 1
        self._samples += self._batch
        if self._passes > 1 and _processes() > 1:
            raise ValueError(
                f"{type(self).__name__} cannot separate the gradients of accumulated passes in several processes: use "
                "accumulate_grad_batches=1 or one process"
            )
        for name, parameter, noise in zip(synapses.names, synapses.parameters, self._noise, strict=True):
            if parameter.grad is None:
                continue
            gradient = parameter.grad - self._previous[name] if name in self._previous else parameter.grad
            total = self._correlation.get(name)
            share = noise if self.draws == 1 else noise / self.draws
            self._correlation[name] = gradient * share if total is None else total.addcmul_(gradient, share)
        self._first = self._noise if self.draws > 1 else []
        self._noise = []
        if self.draws == 1:
            self._previous = {}

    def repeat(self, synapses: Synapses, batch: Experience) -> None:
        if self.draws == 1:
            return
        if _processes() > 1:
            raise ValueError(f"{type(self).__name__} takes several draws in one process only: use draws=1")
        if self._passes > 1 and self.loss_divisor is None:
            raise ValueError(
                f"{type(self).__name__} takes several draws of accumulated passes only where the host says by how much it "
                "divides their losses: use draws=1, or one pass for each step"
            )
        previous, self._previous = self._previous, {}
        held = [(i, p.grad) for i, p in enumerate(synapses.parameters) if p.grad is not None]
        names = tuple(synapses.names[i] for i, _ in held)
        part = Synapses(synapses.network, names, [synapses.parameters[i] for i, _ in held])
        first, self._first = [self._first[i] for i, _ in held], []
        deviations = self.state.tensors("deviation", names)
        own = [g - previous[n] if n in previous else g for n, (_, g) in zip(names, held, strict=True)]
        divisor = self.loss_divisor or 1.0
        sums = self._further.checked(part, batch, first, deviations, own, divisor)
        further, products = self._further(part, batch, self._noises(part.parameters, first), deviations)
        torch._foreach_add_(sums, further, alpha=1.0 / divisor)
        totals = [self._correlation[name] for name in names]
        torch._foreach_add_(totals, products, alpha=1.0 / (divisor * self.draws))
        torch._foreach_div_(sums, self.draws)
        for name, parameter, mean in zip(names, part.parameters, sums, strict=True):
            parameter.grad = mean + previous[name] if name in previous else mean

    def _noises(self, like: list[nn.Parameter], first: list[Tensor]) -> list[Tensor]:
        """ε of the draws after the first, (draws - 1, ...) of each parameter."""
        if not self.antithetic:
            return draw_normal(self.state, like, self.seed, self.draws - 1)
        pairs = draw_normal(self.state, like, self.seed, self.draws // 2 - 1)
        return [torch.cat((-own[None], pair, -pair)) for own, pair in zip(first, pairs, strict=True)]

    def gradient(self, synapses: Synapses) -> None:
        self._stepped = True
        # Several processes average their gradients, each over samples of its own.
        scale = float(_processes() * self._likelihood_scale())
        gradients = synapses.gradients
        missing = [name for name in synapses.names if name not in self._correlation]
        if missing:
            raise ValueError(
                f"{type(self).__name__} has no sampled pass for the gradient of {missing[0]!r}: every step needs "
                "before_forward, a backward pass and after_backward"
            )
        correlations = [self._correlation.pop(name) for name in synapses.names]
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
            torch._foreach_mul_(correlations, scale)
        deviations = self.state.tensors("deviation", synapses.names)
        self._moves = [p.detach() for p in synapses.parameters], deviations, gradients, correlations
        for parameter in synapses.parameters:
            parameter.grad = None

    def commit(self, synapses: Synapses) -> None:
        if self._moves is not None:
            moves, self._moves = self._moves, None
            self.move(*moves)

    def restore(self, synapses: Synapses) -> None:
        self._unperturb()
        self._begin_step()
        self._noise, self._previous, self._moves, self._first = [], {}, None, []

    def unperturbed(self) -> list[tuple[Tensor, Tensor]]:
        return [] if self._mean is None else list(zip(*self._mean, strict=True))

    def scalars(self, synapses: Synapses) -> dict[str, Tensor]:
        if "deviation" not in self.state:
            return {}
        deviations = self.state.tensors("deviation", synapses.names)
        total = torch.stack([deviation.sum() for deviation in deviations]).sum()
        return {"mean_deviation": total / sum(deviation.numel() for deviation in deviations)}

    def _begin_step(self) -> None:
        self._stepped, self._passes, self._samples = False, 0, 0
        self._correlation = {}

    def _unperturb(self) -> None:
        if self._mean is not None:
            torch._foreach_copy_(*self._mean)
            self._mean = None

    def _likelihood_scale(self) -> float:
        """The factor by which the step's gradient is scaled to that of the likelihood of all its samples."""
        if self.loss_reduction == "sum":
            return self.loss_divisor or 1.0
        return self._samples * (1.0 if self.loss_divisor is None else self.loss_divisor / self._passes)

    def begin_experience(self, synapses: Synapses) -> None:
        if self.scale == "absolute" or "deviation" not in self.state:
            return
        for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
            if name in self.state["deviation"]:
                self.state["deviation"][name].nan_to_num_(self._start(synapses, name, parameter))

    def join(self, synapses: Synapses) -> None:
        """New parameters start with the deviation of all, in the next pass."""

    def _start(self, synapses: Synapses, name: str, parameter: Tensor) -> float:
        if self.scale == "absolute":
            return self.deviation
        return float(self.deviation / _fan_in(synapses, name, parameter) ** 0.5)

    def _deviations(self, synapses: Synapses) -> list[Tensor]:
        deviations = dict(self.state["deviation"]) if "deviation" in self.state else {}
        if any(name not in deviations for name in synapses.names):
            for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
                if name not in deviations:
                    start = self._start(synapses, name, parameter)
                    deviations[name] = torch.full_like(parameter, start, requires_grad=False)
            self.state["deviation"] = deviations
        return self.state.tensors("deviation", synapses.names)


def _fan_in(synapses: Synapses, name: str, parameter: Tensor) -> int:
    """Inputs of a unit; those of a bias are its layer's."""
    if parameter.dim() < 2:
        weight = getattr(synapses.network.get_submodule(name.rpartition(".")[0]), "weight", None)
        parameter = weight if isinstance(weight, Tensor) and weight.dim() > 1 else parameter
    return parameter[0].numel() if parameter.dim() > 1 else 1


def bounded_step(
    tensors: list[Tensor], rates: Tensors, slopes: list[Tensor], factor: float, bounds: Tensors | None
) -> None:
    """Adds ``factor · rate · slope``, clamped to ± ``bound`` if bounds are given, to each tensor; overwrites the slopes."""
    torch._foreach_mul_(slopes, rates)
    torch._foreach_mul_(slopes, factor)
    if bounds is not None:
        torch._foreach_minimum_(slopes, bounds)
        torch._foreach_maximum_(slopes, torch._foreach_neg(bounds))
    torch._foreach_add_(tensors, slopes)


def _processes() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1

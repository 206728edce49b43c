"""Ways to sum powers of per-sample gradients that follow the whole network: a loop, `torch.func`, and matrix products."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_meta.functional._batch_tree import count_samples, map_samples, sample_leaves, take, with_leaves
from lit_meta.functional._recurrent import unrolled

Power = Literal[1, 2]
Sums = dict[str, Tensor]
# From the output of some samples, and the position of the first of them, to vectors v (batch, classes): the gradient of a
# sample is Jᵀv, and where there are several vectors, their powers are summed.
Cotangents = Callable[[Tensor, int], Iterator[Tensor]]


class NotApplicable(Exception):
    """A network, a batch or a loss that a way of computing per-sample gradients cannot take."""


@dataclass(frozen=True)
class Problem:
    """What is differentiated, with respect to what.

    Attributes:
        network: owns the parameters, and is run (among other things, maybe) by `run`.
        parameters: by name.
        run: from a batch to the outputs (samples, classes), or, if `scalar`, to the mean of the samples' losses.
        scalar: which of the two.
        owner: contains everything that `run` runs, and the network.
    """

    network: nn.Module
    parameters: dict[str, nn.Parameter]
    run: Callable[[Any], Tensor]
    scalar: bool
    owner: nn.Module

    def outputs(self, batch: Any) -> Tensor:
        """(samples, classes); of a scalar problem (1, 1), the sum of the samples' losses."""
        output = self.run(batch)
        if not isinstance(output, Tensor):
            raise ValueError(f"per-sample gradients need a tensor to differentiate, got {type(output).__name__}.")
        if not self.scalar:
            if output.dim() != 2:
                raise ValueError(f"the network must give (batch, classes), got {tuple(output.shape)}.")
            if output.shape[0] != count_samples(batch):
                raise ValueError(
                    f"the network gave {output.shape[0]} outputs for {count_samples(batch)} samples: it must give "
                    "one for each; layers that keep a state have to be reset before each batch."
                )
            return output
        if output.numel() != 1 or not output.is_floating_point():
            raise ValueError(
                f"the loss must be one floating-point number, the mean over the batch, got {output.dtype} of shape "
                f"{tuple(output.shape)}."
            )
        return output.reshape(1, 1) * count_samples(batch)


class Path(Protocol):
    """Σ over the samples of a batch of |g|^power; ``start`` is the position of the first of them."""

    def __call__(self, problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums: ...


def raised(tensor: Tensor, power: Power) -> Tensor:
    return tensor.square() if power == 2 else tensor.abs()


def add(totals: Sums, name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value if name in totals else value


def loop_sums(problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
    """One forward and backward pass a sample: what every other way must equal."""
    parameters = problem.parameters
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for i in range(count_samples(batch)):
        output = problem.outputs(take(batch, slice(i, i + 1)))
        for cotangent in cotangents(output.detach(), start + i):
            if not output.requires_grad:
                continue
            gradients = torch.autograd.grad(
                output, list(parameters.values()), cotangent, retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += raised(gradient, power)
    return totals


class _Bound(nn.Module):
    """The network together with what runs it, so that `functional_call` exchanges the parameters of the former."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.network = problem.network
        self._problem = problem

    def forward(self, batch: Any) -> Tensor:
        return self._problem.outputs(batch)


def _places(network: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, str]:
    """Where in a network the parameters are, and the name of the one that is there; one that is shared is in several.

    `functional_call` ties weights by itself, but where one *module* is in two places it exchanges the same slot twice and
    puts the wrong tensor back. Here every slot comes once.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    return {
        f"{path}.{local}" if path else local: names[id(parameter)]
        for path, module in network.named_modules()
        for local, parameter in module._parameters.items()
        if id(parameter) in names
    }


def vmap_sums(problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
    """From gradients of single samples, for any network that `torch.func` can follow."""
    count = count_samples(batch)

    def refuse(items: list) -> list:
        if len(items) == count:
            raise NotApplicable("samples come with things that are not tensors")
        return items

    map_samples(lambda leaf: leaf, batch, refuse)
    bound = _Bound(problem)
    places = _places(bound, problem.parameters)
    values = {name: parameter.detach() for name, parameter in problem.parameters.items()}
    leaves = tuple(sample_leaves(batch))

    def output_of(values: dict[str, Tensor], leaves: tuple[Tensor, ...]) -> Tensor:
        sample = with_leaves(batch, [leaf.unsqueeze(0) for leaf in leaves])
        exchanged = {place: values[name] for place, name in places.items()}
        output: Tensor = functional_call(bound, exchanged, (sample,), tie_weights=False)
        return output.squeeze(0)

    def projected(values: dict[str, Tensor], leaves: tuple[Tensor, ...], cotangent: Tensor) -> Tensor:
        return (output_of(values, leaves) * cotangent).sum()

    totals: Sums = {}
    # The fused kernels of attention have no batching rule; warnings are of slow fallbacks, one for each operation.
    with sdpa_kernel(SDPBackend.MATH), unrolled(problem.owner), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if problem.scalar:
            output = torch.ones(count, 1, device=leaves[0].device)
        else:
            with torch.no_grad():
                output = vmap(output_of, in_dims=(None, 0))(values, leaves)
        for cotangent in cotangents(output, start):
            gradients = vmap(grad(projected), in_dims=(None, 0, 0))(values, leaves, cotangent)
            for name, gradient in gradients.items():
                add(totals, name, raised(gradient, power).sum(dim=0))
    return totals


def require_mean_loss(problem: Problem, batch: Any) -> None:
    """Raises `NotApplicable` where the loss of a batch is not the mean of its samples' losses.

    A loss that is weighted by class, or is a mean over the tokens of all samples, is no such mean, and gradients of
    the samples taken out of one backward pass would be scaled wrongly. Two samples may well have the same weight, so each
    batch is checked, as a whole against two parts. Where there are two different weights, parts of coprime sizes cannot
    both have the same mean weight; a single sample is the second split.
    """
    count = count_samples(batch)
    if not problem.scalar or count == 1:
        return
    half = next(k for k in range((count + 1) // 2, count) if gcd(k, count) == 1)
    with torch.no_grad():
        whole = problem.outputs(batch)
        tolerance = max(1e-5, 64 * torch.finfo(whole.dtype).eps)
        for split in {1, half}:
            parts = [problem.outputs(take(batch, rows)) for rows in (slice(0, split), slice(split, count))]
            scale = whole.abs() + parts[0].abs() + parts[1].abs()
            if not bool((whole - parts[0] - parts[1]).abs() <= tolerance * scale):
                raise NotApplicable("the loss is not a mean over samples")


def _linear_layers(network: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Linear]:
    """The Linear layers that own the parameters; raises `NotApplicable` if others own any, or share one."""
    owners: dict[str, nn.Linear] = {}
    identities = {id(parameter) for parameter in parameters.values()}
    owned = 0
    for path, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in identities]
        if own and type(module) is not nn.Linear:
            raise NotApplicable(f"{path} is not a Linear layer")
        if own:
            assert isinstance(module, nn.Linear)
            owners[path] = module
        owned += len(own)
    if owned != len(parameters):
        raise NotApplicable("layers share parameters")
    return owners


def linear_sums(problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
    """One matrix product a layer; raises `NotApplicable` where that does not hold."""
    layers = _linear_layers(problem.network, problem.parameters)
    count = count_samples(batch)
    raised_inputs: dict[str, Tensor] = {}
    edges: dict[str, GradientEdge] = {}

    def capture(path: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return  # steps that leave no gradient (those of a spiking network before its last)
            if path in edges or len(arguments) != 1 or arguments[0].dim() != 2 or len(arguments[0]) != count:
                raise NotApplicable(f"{path} does not run once on (samples, features)")
            # Raised now, and the edge kept in place of the tensor: what follows may work in place.
            raised_inputs[path] = raised(arguments[0].detach(), power)
            edges[path] = get_gradient_edge(output)

        return hook

    require_mean_loss(problem, batch)
    # First, since a hook that was there before may change the output (a gate).
    handles = [layer.register_forward_hook(capture(path), prepend=True) for path, layer in layers.items()]
    try:
        output = problem.outputs(batch)
    finally:
        for handle in handles:
            handle.remove()
    if set(edges) != set(layers):
        raise NotApplicable("a layer did not run")
    raised_deltas: dict[str, Tensor] = {}
    for cotangent in cotangents(output.detach(), start):
        deltas = torch.autograd.grad(output, list(edges.values()), cotangent, retain_graph=True, allow_unused=True)
        for path, delta in zip(edges, deltas, strict=True):
            if delta is not None:
                add(raised_deltas, path, raised(delta, power))
    totals: Sums = {}
    for path, delta in raised_deltas.items():
        prefix = f"{path}." if path else ""
        if f"{prefix}weight" in problem.parameters:
            totals[f"{prefix}weight"] = delta.T @ raised_inputs[path]
        if f"{prefix}bias" in problem.parameters:
            totals[f"{prefix}bias"] = delta.sum(dim=0)
    return totals

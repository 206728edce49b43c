"""Sums over samples of a function of each sample's own gradient: the machinery behind importances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

Power = Literal[1, 2]
Sums = dict[str, Tensor]
# From the output of some samples, and the position of the first of them, to vectors v (batch, classes): the gradient of a
# sample is Jᵀv, and where there are several vectors, their powers are summed.
Cotangents = Callable[[Tensor, int], Iterator[Tensor]]
_Cotangents = Callable[[Tensor], Iterator[Tensor]]
Path = Callable[[nn.Module, dict[str, nn.Parameter], Tensor, _Cotangents, Power], Sums]

# Per-sample gradients held at once by the general path: 2²⁵ numbers are 128 MiB in single precision.
_GRADIENTS_AT_ONCE = 2**25
_SAMPLES_AT_ONCE = 1024


def mean_power(
    network: nn.Module,
    inputs: Tensor,
    cotangents: Cotangents,
    *,
    power: Power,
    names: Collection[str] | None = None,
    chunk_size: int | None = None,
) -> Sums:
    """``E[|g|^power]`` over samples, g the gradient ``Jᵀv`` of *one* sample, v what ``cotangents`` gives for its output.

    The network is in eval mode meanwhile, so that a normalisation layer treats every sample alone too, and is put back
    as it was.

    Where every parameter asked for belongs to an `nn.Linear` that runs once on (batch, features), the sums come from
    ``(|δ|^power)ᵀ (|a|^power)``, one matrix product a layer (a its input, δ the gradient at its output), without any
    gradient of a single sample. That path is compared with plain autograd on the first two samples and left where they
    differ (a weight used outside its layer, samples that see each other); otherwise, and for every other layer,
    per-sample gradients come from `torch.func`.

    Args:
        network: gives (batch, classes) from `inputs`. Only parameters that require a gradient are considered.
        inputs: (samples, ...), at least one.
        cotangents: see above.
        power: 1 or 2.
        names: the parameters wanted (default: all that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.

    Returns:
        For each parameter, by name, the mean in its own shape.

    Raises:
        ValueError: unknown names, an output that is not (batch, classes), or nothing that requires a gradient.
    """
    parameters = wanted(network, names)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with _evaluating(network), torch.enable_grad():
        sums = choose_path(network, parameters, inputs, power)
        size = chunk_size or (
            _SAMPLES_AT_ONCE
            if sums is linear_sums
            else max(1, _GRADIENTS_AT_ONCE // sum(p.numel() for p in parameters.values()))
        )
        for start in range(0, len(inputs), size):
            chunk = inputs[start : start + size]
            for name, total in sums(network, parameters, chunk, partial(_at, cotangents, start), power).items():
                totals[name] += total
    return {name: total / len(inputs) for name, total in totals.items()}


def _at(cotangents: Cotangents, start: int, output: Tensor) -> Iterator[Tensor]:
    if output.dim() != 2:
        raise ValueError(f"the network must give (batch, classes), got {tuple(output.shape)}.")
    return cotangents(output.detach(), start)


def _raised(tensor: Tensor, power: Power) -> Tensor:
    return tensor.square() if power == 2 else tensor.abs()


def wanted(network: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if isinstance(names, str):
        raise ValueError(f"names must be a collection of parameter names, got the string {names!r}: write [{names!r}].")
    if names is not None:
        missing = sorted(set(names) - set(trainable))
        if missing:
            raise ValueError(
                f"no trainable parameter named {', '.join(missing)}; there are: {', '.join(trainable) or 'none'}."
            )
        trainable = {name: p for name, p in trainable.items() if name in set(names)}
    if not trainable:
        raise ValueError("no parameter to compute the gradient of: none requires a gradient (or is named).")
    return trainable


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, then every module back in the mode it was in (a frozen part may have been in another)."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def per_sample_sums(
    network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor, cotangents: _Cotangents, power: Power
) -> Sums:
    """Σ over samples of |g|^power, from gradients of single samples, for any network `torch.func` can follow."""
    values = {name: parameter.detach() for name, parameter in parameters.items()}

    def output_of(values: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(network, values, (x.unsqueeze(0),))
        return output.squeeze(0)

    def projected(values: dict[str, Tensor], x: Tensor, cotangent: Tensor) -> Tensor:
        return (output_of(values, x) * cotangent).sum()

    with torch.no_grad():
        output = vmap(output_of, in_dims=(None, 0))(values, inputs)
    totals: Sums = {}
    for cotangent in cotangents(output):
        gradients = vmap(grad(projected), in_dims=(None, 0, 0))(values, inputs, cotangent)
        for name, gradient in gradients.items():
            raised = _raised(gradient, power).sum(dim=0)
            totals[name] = totals[name] + raised if name in totals else raised
    return totals


class _NotLinear(Exception):
    """A network that the matrix-product path cannot take."""


def _linear_layers(network: nn.Module, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Linear]:
    """The Linear layers that own the parameters; raises `_NotLinear` if others own any, or share one."""
    owners: dict[str, nn.Linear] = {}
    identities = {id(parameter): name for name, parameter in parameters.items()}
    found = 0
    for path, module in network.named_modules():
        held = [p for p in module.parameters(recurse=False) if id(p) in identities]
        if held and type(module) is not nn.Linear:
            raise _NotLinear
        if held:
            assert isinstance(module, nn.Linear)
            owners[path] = module
        found += len(held)
    if found != len(parameters):
        raise _NotLinear
    return owners


def linear_sums(
    network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor, cotangents: _Cotangents, power: Power
) -> Sums:
    """Σ over samples of |g|^power, one matrix product a layer; raises `_NotLinear` where that does not hold."""
    layers = _linear_layers(network, parameters)
    raised_inputs: dict[str, Tensor] = {}
    edges: dict[str, GradientEdge] = {}

    def capture(path: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return  # steps that leave no gradient (those of a spiking network before its last)
            if path in edges or len(arguments) != 1 or arguments[0].dim() != 2 or len(arguments[0]) != len(inputs):
                raise _NotLinear
            # Raised now, and the edge kept in place of the tensor: what follows may work in place.
            raised_inputs[path] = _raised(arguments[0].detach(), power)
            edges[path] = get_gradient_edge(output)

        return hook

    handles = [layer.register_forward_hook(capture(path)) for path, layer in layers.items()]
    try:
        output = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if set(edges) != set(layers):
        raise _NotLinear
    raised_deltas: dict[str, Tensor] = {}
    for cotangent in cotangents(output):
        deltas = torch.autograd.grad(output, list(edges.values()), cotangent, retain_graph=True, allow_unused=True)
        for path, delta in zip(edges, deltas, strict=True):
            if delta is not None:
                raised = _raised(delta, power)
                raised_deltas[path] = raised_deltas[path] + raised if path in raised_deltas else raised
    totals: Sums = {}
    for path, delta in raised_deltas.items():
        prefix = f"{path}." if path else ""
        if f"{prefix}weight" in parameters:
            totals[f"{prefix}weight"] = delta.T @ raised_inputs[path]
        if f"{prefix}bias" in parameters:
            totals[f"{prefix}bias"] = delta.sum(dim=0)
    return totals


def choose_path(network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor, power: Power) -> Path:
    """The matrix-product path if it gives, on two samples together, what autograd gives on each alone."""
    probe = inputs[:2]

    def ones(output: Tensor) -> Iterator[Tensor]:
        if output.dim() != 2:
            raise ValueError(f"the network must give (batch, classes), got {tuple(output.shape)}.")
        # A ramp, not ones: the gradient of a sum over classes vanishes behind a softmax.
        yield torch.linspace(-1.0, 2.0, output.shape[1], device=output.device, dtype=output.dtype).expand_as(output)

    try:
        fast = linear_sums(network, parameters, probe, ones, power)
    except _NotLinear:
        return per_sample_sums
    slow = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x in probe.split(1):
        output = network(x)
        gradients = torch.autograd.grad(output, list(parameters.values()), next(ones(output)), allow_unused=True)
        for total, gradient in zip(slow.values(), gradients, strict=True):
            if gradient is not None:
                total += _raised(gradient, power)
    for name, expected in slow.items():
        got = fast.get(name, torch.zeros_like(expected))
        if not torch.allclose(got, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
            return per_sample_sums
    return linear_sums

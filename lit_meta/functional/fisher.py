"""The diagonal of the Fisher information, from per-sample gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

Labels = Literal["true", "sample", "exact"]
Loss = Literal["cross_entropy", "mse"]

# Per-sample gradients held at once by the general path: 2²⁵ numbers are 128 MiB in single precision.
_GRADIENTS_AT_ONCE = 2**25
_SAMPLES_AT_ONCE = 1024

Squares = dict[str, Tensor]


def diagonal_fisher(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    labels: Labels = "true",
    loss: Loss = "cross_entropy",
    names: Collection[str] | None = None,
    chunk_size: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """``E[g²]``, g the gradient of the loss of *one* sample: the diagonal of the Fisher information.

    Squaring the gradient of a batch mean instead would give a quantity that shrinks with the batch; this one
    does not depend on how samples are grouped. The network is in eval mode meanwhile, so that a normalisation
    layer treats every sample alone too, and is put back as it was.

    Where every parameter asked for belongs to an `nn.Linear` that runs once on (batch, features), the squares
    come from ``(δ²)ᵀ (a²)``, one matrix product a layer (a its input, δ the gradient at its output), without
    any gradient of a single sample. That path is compared with plain autograd on the first two samples and
    left where they differ (a weight used outside its layer, samples that see each other); otherwise, and for
    every other layer, per-sample gradients come from `torch.func`.

    Args:
        network: gives (batch, classes) from `inputs`. Only parameters that require a gradient are considered.
        inputs: (samples, ...).
        targets: (samples,) class indices, or (samples, classes) in the type of the output. Read for
            ``labels="true"`` only.
        labels: where the targets come from. ``"true"``: the data (the empirical Fisher). ``"sample"``: drawn
            from the network's own prediction. ``"exact"``: the expectation over it, a backward pass for each
            class.
        loss: ``"cross_entropy"`` on logits, a categorical prediction; ``"mse"``, ``½ ‖f(x) − y‖²`` summed
            over the outputs, a Gaussian prediction of unit variance.
        names: the parameters wanted (default: all that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.
        generator: source of the randomness of ``labels="sample"``, on the device of the output.

    Returns:
        For each parameter, by name, its E[g²] in its own shape.

    Raises:
        ValueError: no samples, targets missing or of the wrong shape, unknown labels, loss or names, an
            output that is not (batch, classes), or nothing that requires a gradient.

    Source: Kirkpatrick et al., PNAS 114(13), 2017; Kunstner et al., NeurIPS 2019 (why the three labels
    differ).

    Example:
        >>> network = nn.Linear(3, 2)
        >>> fisher = diagonal_fisher(network, torch.randn(8, 3), labels="exact")
        >>> {name: tuple(values.shape) for name, values in fisher.items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    parameters = _wanted(network, names)
    if labels not in ("true", "sample", "exact"):
        raise ValueError(f"labels must be 'true', 'sample' or 'exact', got {labels!r}.")
    if loss not in ("cross_entropy", "mse"):
        raise ValueError(f"loss must be 'cross_entropy' or 'mse', got {loss!r}.")
    if labels == "true" and targets is None:
        raise ValueError("labels='true' needs targets; pass them, or labels='sample' or 'exact'.")
    if generator is not None and labels != "sample":
        raise ValueError(f"a generator has no effect with labels={labels!r}; only labels='sample' draws.")
    if len(inputs) == 0 or (labels == "true" and targets is not None and len(targets) != len(inputs)):
        raise ValueError(
            f"expected at least one sample and as many targets, got {len(inputs)} samples"
            + (f" and {len(targets)} targets." if targets is not None else ".")
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")

    def cotangents(output: Tensor, start: int) -> Iterator[Tensor]:
        chunk = targets[start : start + len(output)] if labels == "true" and targets is not None else None
        return _cotangents(output, chunk, labels, loss, generator)

    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with _evaluating(network), torch.enable_grad():
        squares = _choose_path(network, parameters, inputs)
        size = chunk_size or (
            _SAMPLES_AT_ONCE
            if squares is _linear_squares
            else max(1, _GRADIENTS_AT_ONCE // sum(p.numel() for p in parameters.values()))
        )
        for start in range(0, len(inputs), size):
            chunk = inputs[start : start + size]
            for name, total in squares(network, parameters, chunk, partial(cotangents, start=start)).items():
                totals[name] += total
    return {name: total / len(inputs) for name, total in totals.items()}


def _wanted(network: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
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
        raise ValueError("no parameter to compute the Fisher information of: none requires a gradient (or is named).")
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


def _cotangents(
    output: Tensor, targets: Tensor | None, labels: str, loss: str, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Vectors v (batch, classes) such that the squares of ``Jᵀv``, summed over them, are the wanted E[g²]."""
    if output.dim() != 2:
        raise ValueError(f"the network must give (batch, classes), got {tuple(output.shape)}.")
    output = output.detach()
    classes = output.shape[1]
    prediction = output.softmax(dim=1) if loss == "cross_entropy" else output
    if labels == "true":
        assert targets is not None  # diagonal_fisher has checked
        if not targets.is_floating_point():
            if targets.dim() != 1:
                raise ValueError(f"class indices must be (samples,), got {tuple(targets.shape)}.")
            targets = F.one_hot(targets.long(), classes)
        elif targets.shape != output.shape:
            raise ValueError(
                f"targets must be (samples,) class indices or {classes} numbers a sample, got {tuple(targets.shape)}."
            )
        targets = targets.to(output)
        scale = targets.sum(dim=1, keepdim=True) if loss == "cross_entropy" else 1.0
        yield scale * prediction - targets
    elif labels == "sample" and loss == "cross_entropy":
        drawn = torch.multinomial(prediction, 1, generator=generator)[:, 0]
        yield prediction - F.one_hot(drawn, classes).to(output)
    elif labels == "sample":
        yield torch.randn(output.shape, generator=generator, device=output.device, dtype=output.dtype)
    else:
        # The weight of a class goes into its vector as a root, since the result is squared. For a Gaussian
        # E[(Jᵀε)²] is the sum over the outputs, unweighted.
        basis = torch.eye(classes, device=output.device, dtype=output.dtype)
        for unit, probability in zip(basis, prediction.T, strict=True):
            yield (
                probability.sqrt()[:, None] * (prediction - unit) if loss == "cross_entropy" else unit.expand_as(output)
            )


Cotangents = Callable[[Tensor], Iterator[Tensor]]
Path = Callable[[nn.Module, dict[str, nn.Parameter], Tensor, Cotangents], Squares]


def _per_sample_squares(
    network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor, cotangents: Cotangents
) -> Squares:
    """Σ over samples of g², from gradients of single samples, for any network `torch.func` can follow."""
    values = {name: parameter.detach() for name, parameter in parameters.items()}

    def output_of(values: dict[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(network, values, (x.unsqueeze(0),))
        return output.squeeze(0)

    def projected(values: dict[str, Tensor], x: Tensor, cotangent: Tensor) -> Tensor:
        return (output_of(values, x) * cotangent).sum()

    with torch.no_grad():
        output = vmap(output_of, in_dims=(None, 0))(values, inputs)
    totals: Squares = {}
    for cotangent in cotangents(output):
        gradients = vmap(grad(projected), in_dims=(None, 0, 0))(values, inputs, cotangent)
        for name, gradient in gradients.items():
            square = gradient.square().sum(dim=0)
            totals[name] = totals[name] + square if name in totals else square
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


def _linear_squares(
    network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor, cotangents: Cotangents
) -> Squares:
    """Σ over samples of g², one matrix product a layer; raises `_NotLinear` where that does not hold."""
    layers = _linear_layers(network, parameters)
    squared_inputs: dict[str, Tensor] = {}
    edges: dict[str, GradientEdge] = {}

    def capture(path: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if not torch.is_grad_enabled():
                return  # steps that leave no gradient (those of a spiking network before its last)
            if path in edges or len(arguments) != 1 or arguments[0].dim() != 2 or len(arguments[0]) != len(inputs):
                raise _NotLinear
            # Squared now, and the edge kept in place of the tensor: what follows may work in place.
            squared_inputs[path] = arguments[0].detach().square()
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
    squared_deltas: dict[str, Tensor] = {}
    for cotangent in cotangents(output):
        deltas = torch.autograd.grad(output, list(edges.values()), cotangent, retain_graph=True, allow_unused=True)
        for path, delta in zip(edges, deltas, strict=True):
            if delta is not None:
                square = delta.square()
                squared_deltas[path] = squared_deltas[path] + square if path in squared_deltas else square
    totals: Squares = {}
    for path, delta in squared_deltas.items():
        prefix = f"{path}." if path else ""
        if f"{prefix}weight" in parameters:
            totals[f"{prefix}weight"] = delta.T @ squared_inputs[path]
        if f"{prefix}bias" in parameters:
            totals[f"{prefix}bias"] = delta.sum(dim=0)
    return totals


def _choose_path(network: nn.Module, parameters: dict[str, nn.Parameter], inputs: Tensor) -> Path:
    """The matrix-product path if it gives, on two samples together, what autograd gives on each alone."""
    probe = inputs[:2]

    def ones(output: Tensor) -> Iterator[Tensor]:
        if output.dim() != 2:
            raise ValueError(f"the network must give (batch, classes), got {tuple(output.shape)}.")
        # A ramp, not ones: the gradient of a sum over classes vanishes behind a softmax.
        yield torch.linspace(-1.0, 2.0, output.shape[1], device=output.device, dtype=output.dtype).expand_as(output)

    try:
        fast = _linear_squares(network, parameters, probe, ones)
    except _NotLinear:
        return _per_sample_squares
    slow = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x in probe.split(1):
        output = network(x)
        gradients = torch.autograd.grad(output, list(parameters.values()), next(ones(output)), allow_unused=True)
        for total, gradient in zip(slow.values(), gradients, strict=True):
            if gradient is not None:
                total += gradient.square()
    for name, expected in slow.items():
        got = fast.get(name, torch.zeros_like(expected))
        if not torch.allclose(got, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
            return _per_sample_squares
    return _linear_squares

"""Per-sample gradients layer by layer, from what goes into each layer and the gradient at what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap

from lit_meta.functional._batch_tree import count_samples
from lit_meta.functional._gradient_paths import (
    Cotangents,
    NotApplicable,
    Power,
    Problem,
    Sums,
    add,
    raised,
    require_mean_loss,
)

# Where the samples of a layer's input are: its first or second dimension, or its first with time steps inside (outside) each.
Layout = Literal["first", "second", "inside", "outside"]


class LayerPath:
    """One forward and backward pass for all samples; then each layer's gradients of its parameters, by itself.

    For networks with functions that `torch.func` cannot follow (surrogate gradients of spikes) between layers that it can.
    Every module that owns parameters must run on one tensor with samples in it, any number of times, and treat
    them alone. Where in the tensor they are is found out in the first call, and later calls must agree.

    Args:
        time_first: whether layers that see several time steps at once see them before the samples.
    """

    def __init__(self, *, time_first: bool) -> None:
        self.time_first = time_first
        self._layouts: dict[str, list[Layout]] | None = None

    def __call__(self, problem: Problem, batch: Any, cotangents: Cotangents, power: Power, start: int = 0) -> Sums:
        """Σ |g|^power; raises `NotApplicable` where layers cannot be taken by themselves."""
        require_mean_loss(problem, batch)
        count = count_samples(batch)
        owners = _owners(problem)
        inputs: dict[str, list[Tensor]] = {path: [] for path in owners}
        edges: list[tuple[str, GradientEdge]] = []
        layouts: dict[str, list[Layout]] = {path: [] for path in owners}

        def capture(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
                if not torch.is_grad_enabled():
                    return
                if len(arguments) != 1 or options or not all(isinstance(t, Tensor) for t in (arguments[0], output)):
                    raise NotApplicable(f"{path} does not run on one tensor")
                layout = self._layout(path, len(layouts[path]), arguments[0], output, count)
                layouts[path].append(layout)
                # Copied, since what follows may work in place.
                inputs[path].append(_by_sample(arguments[0].detach(), layout, count).clone())
                edges.append((path, get_gradient_edge(output)))

            return hook

        def expand(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            # What all samples share (the positions of tokens) is given to each, so that its gradient is each one's too.
            if len(arguments) == 1 and isinstance(arguments[0], Tensor) and arguments[0].shape[:1] == (1,) != (count,):
                return (arguments[0].expand(count, *arguments[0].shape[1:]),)
            return None

        handles = [module.register_forward_pre_hook(expand) for module, _ in owners.values()]
        handles += [
            module.register_forward_hook(capture(path), prepend=True, with_kwargs=True)
            for path, (module, _) in owners.items()
        ]
        try:
            output = problem.outputs(batch)
        finally:
            for handle in handles:
                handle.remove()
        if self._layouts not in (None, layouts):
            raise NotApplicable("layers run differently than they did")
        self._layouts = layouts
        totals: Sums = {}
        for cotangent in cotangents(output.detach(), start):
            gradients = torch.autograd.grad(
                output, [e for _, e in edges], cotangent, retain_graph=True, allow_unused=True
            )
            deltas: dict[str, list[Tensor | None]] = {path: [] for path in owners}
            for (path, _), delta in zip(edges, gradients, strict=True):
                layout = layouts[path][len(deltas[path])]
                deltas[path].append(None if delta is None else _by_sample(delta, layout, count))
            shared: Sums = {}
            for path, (module, names) in owners.items():
                for name, gradient in _gradients(module, names, inputs[path], deltas[path]).items():
                    if _users(owners, name) == 1:
                        add(totals, name, raised(gradient, power).sum(dim=0))
                    else:
                        add(shared, name, gradient)
            for name, gradient in shared.items():
                add(totals, name, raised(gradient, power).sum(dim=0))
        return totals

    def _layout(self, path: str, call: int, x: Tensor, output: Tensor, count: int) -> Layout:
        if self._layouts is not None:
            before = self._layouts[path]
            if call >= len(before):
                raise NotApplicable(f"{path} runs more often than it did")
            layout = before[call]
        elif self.time_first and x.dim() > 2 and x.shape[1] == count != x.shape[0]:
            layout = "second"
        elif x.shape[:1] == (count,):
            layout = "first"
        else:
            layout = "outside" if self.time_first else "inside"
        for tensor in (x, output):
            size = tensor.shape[1 if layout == "second" else 0] if tensor.dim() > (layout == "second") else 0
            if size != count and (layout in ("first", "second") or size == 0 or size % count):
                raise NotApplicable(
                    f"{path} runs on {tuple(tensor.shape)}, in which {count} samples are not to be found"
                )
        return layout


def _by_sample(x: Tensor, layout: Layout, count: int) -> Tensor:
    """(samples, instances, ...): a layer runs on several instances of a sample, and takes each alone."""
    if layout == "first":
        return x.unsqueeze(1)
    if layout == "second":
        return x.transpose(0, 1)
    if layout == "inside":
        return x.unflatten(0, (count, -1))
    return x.unflatten(0, (-1, count)).transpose(0, 1)


def _owners(problem: Problem) -> dict[str, tuple[nn.Module, dict[str, str]]]:
    """The modules that own parameters, each with the name of what it calls ``weight``, say."""
    names = {id(parameter): name for name, parameter in problem.parameters.items()}
    owners: dict[str, tuple[nn.Module, dict[str, str]]] = {}
    for path, module in problem.network.named_modules():
        own = {local: names[id(p)] for local, p in module._parameters.items() if id(p) in names}
        if own:
            owners[path] = (module, own)
    return owners


def _users(owners: dict[str, tuple[nn.Module, dict[str, str]]], name: str) -> int:
    return sum(list(names.values()).count(name) for _, names in owners.values())


class _Forward(nn.Module):
    """A module without the hooks on it: what they did is in its recorded input already."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.forward(x)


def _gradients(module: nn.Module, names: dict[str, str], inputs: list[Tensor], deltas: list[Tensor | None]) -> Sums:
    """(samples, ...) for each parameter of a module, by its name in the network."""
    calls = [(x, delta) for x, delta in zip(inputs, deltas, strict=True) if delta is not None]
    if not calls:
        return {}
    if len({(x.shape[2:], delta.shape[2:]) for x, delta in calls}) > 1:
        raise NotApplicable("a layer runs on inputs of several shapes")
    x = torch.cat([x for x, _ in calls], dim=1)
    delta = torch.cat([delta for _, delta in calls], dim=1)
    forward = _Forward(module)
    values = {local: module._parameters[local] for local in names}

    def projected(values: dict[str, Tensor], x: Tensor, delta: Tensor) -> Tensor:
        places = {f"module.{local}": value for local, value in values.items()}
        output: Tensor = functional_call(forward, places, (x,), tie_weights=False)
        return (output * delta).sum()

    gradients = vmap(grad(projected), in_dims=(None, 0, 0))(
        {k: v.detach() for k, v in values.items() if v is not None}, x, delta
    )
    sums: Sums = {}
    for local, gradient in gradients.items():
        add(sums, names[local], gradient)
    return sums

"""Why a prediction may depend on more than its own sample: what inspection finds, and where outputs first differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from lit_meta.networks.gates import InputGate
from lit_meta.networks.spiking import SpikingNetwork


@dataclass(frozen=True)
class Cause:
    """Something that can make a prediction depend on more than its own sample.

    Attributes:
        module: the module's name; empty for the model itself.
        kind: ``"batch statistics"``, ``"batch-dependent gate"``, ``"batch-dependent encoding"``, ``"dropout"``,
            ``"training mode"``, ``"carried state"``, ``"chance"``, ``"batch size"``, or ``"other samples"``.
        message: what it does, as a sentence.
    """

    module: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.module or 'the model itself'}: {self.message}"


def inspect(model: nn.Module) -> list[Cause]:
    """What is known to make predictions depend on the batch or on chance, in the modes the modules are in now.

    Example:
        >>> [cause.kind for cause in inspect(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train())]
        ['batch statistics']
        >>> inspect(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval())
        []
    """
    found: list[Cause] = []
    for name, module in model.named_modules():
        what = type(module).__name__
        if isinstance(module, _NormBase) and not isinstance(module, _InstanceNorm):
            if module.running_mean is None and module.running_var is None:
                message = f"{what} with track_running_stats=False normalises with the mean and variance of each batch"
                found.append(Cause(name, "batch statistics", message))
            elif module.training:
                message = f"{what} in training mode normalises with the mean and variance of each batch"
                found.append(Cause(name, "batch statistics", message))
        elif isinstance(module, _DropoutNd) and module.training and module.p > 0:
            found.append(Cause(name, "dropout", f"{what}(p={module.p}) is on: predictions depend on chance"))
        elif isinstance(module, InputGate) and module.kind == "batch":
            message = "the gate opens units by the mean of the batch, so the other samples tell it what to expect"
            found.append(Cause(name, "batch-dependent gate", message))
        elif isinstance(module, SpikingNetwork):
            if module.encoding == "bernoulli" and module.input_range == "batch":
                message = "input spikes are drawn between the least and the greatest value of each batch"
                found.append(Cause(name, "batch-dependent encoding", message))
            if module.encoding == "bernoulli" and module.training:
                found.append(Cause(name, "chance", "in training mode input spikes are drawn anew at every pass"))
    return found


def left_in_training(model: nn.Module) -> list[Cause]:
    """Modules that are in training mode although the model is meant to be evaluated, where that can matter."""
    matter = (_NormBase, _DropoutNd, SpikingNetwork, nn.RNNBase, nn.MultiheadAttention)
    return [
        Cause(name, "training mode", f"{type(module).__name__} stays in training mode when the model is evaluated")
        for name, module in model.named_modules()
        if module.training and isinstance(module, matter)
    ]


@dataclass(frozen=True)
class _Call:
    """What one module took and gave for the samples that are watched."""

    name: str
    inputs: list[Tensor]
    output: Tensor


@contextmanager
def _recording(model: nn.Module, batch: int, rows: int) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def watched(value: Any) -> list[Tensor]:
        found = value if isinstance(value, (tuple, list)) else (value,)
        return [t[:rows].detach().clone() for t in found if isinstance(t, Tensor) and t.dim() and len(t) == batch]

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def after(module: nn.Module, arguments: Any, output: Any) -> None:
            outputs = watched(output)
            if outputs:
                calls.append(_Call(name, watched(arguments), outputs[0]))

        return after

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def first_difference(
    model: nn.Module, forward: Callable[[Tensor], Tensor], one: Tensor, other: Tensor, rows: int
) -> str | None:
    """The innermost module that gives the same samples another output in the second batch, from the same input.

    Args:
        model: whose modules are watched.
        forward: the call to be looked into.
        one: (batch, ...), whose first ``rows`` samples are those of ``other``.
        other: (batch, ...).
        rows: how many samples are watched.

    Returns:
        The module's name (empty for the model itself), or None where no module differs beyond rounding.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU()).train()
        >>> x = torch.arange(8.0).reshape(4, 2)
        >>> first_difference(model, model, x, torch.cat([x[:2], 9 + x[2:]]), rows=2)
        '1'
    """
    recorded = []
    for batch in (one, other):
        with _recording(model, len(batch), rows) as calls:
            forward(batch)
        recorded.append(calls)
    # Calls are recorded as they return, so a module comes before those that contain it.
    for before, after in zip(*recorded, strict=False):
        if before.name != after.name:
            return None
        same_input = len(before.inputs) == len(after.inputs) and all(map(_close, before.inputs, after.inputs))
        if same_input and not _close(before.output, after.output):
            return before.name
    return None


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    scale = float(one.abs().max()) if one.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-5 * max(scale, 1e-12), equal_nan=True))


class Memory:
    """The tensors a model holds (parameters, buffers, plain attributes), to see and undo what predicting changes.

    Args:
        model: whose tensors they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._held = {name: t.detach().clone() for name, t in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        found = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        for name, module in self._model.named_modules():
            prefix = f"{name}." if name else ""
            found.update({prefix + key: value for key, value in vars(module).items() if isinstance(value, Tensor)})
        return found

    def changed(self) -> list[str]:
        """Names of the tensors that are new, gone or other than they were."""
        now = self._tensors()
        return sorted(
            name
            for name in self._held.keys() | now.keys()
            if name not in now
            or name not in self._held
            or now[name].shape != self._held[name].shape
            or not torch.equal(now[name], self._held[name])
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Gives every parameter and buffer the value it had, in place; plain attributes are left."""
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            if name in self._held and tensor.shape == self._held[name].shape:
                tensor.copy_(self._held[name])

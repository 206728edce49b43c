"""Why a prediction may depend on more than its own sample: inspection of modules, and where outputs first differ."""

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
        message: its effect, as a sentence without a subject.
    """

    module: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.module or 'the model itself'}: {self.message}"


def inspect(model: nn.Module) -> list[Cause]:
    """Modules known to make predictions depend on the batch or on chance, in their current modes.

    Example:
        >>> [cause.kind for cause in inspect(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train())]
        ['batch statistics']
        >>> inspect(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval())
        []
    """
    causes: list[Cause] = []
    for name, module in model.named_modules():
        what = type(module).__name__
        if isinstance(module, _NormBase) and not isinstance(module, _InstanceNorm):
            if module.running_mean is None and module.running_var is None:
                message = f"{what} with track_running_stats=False normalises with the mean and variance of each batch"
                causes.append(Cause(name, "batch statistics", message))
            elif module.training:
                message = f"{what} in training mode normalises with the mean and variance of each batch"
                causes.append(Cause(name, "batch statistics", message))
        elif isinstance(module, _DropoutNd) and module.training and module.p > 0:
            causes.append(Cause(name, "dropout", f"{what}(p={module.p}) is on: predictions depend on chance"))
        elif isinstance(module, InputGate) and module.kind == "batch":
            message = "the gate opens units by the batch mean, so the other samples tell it what to expect"
            causes.append(Cause(name, "batch-dependent gate", message))
        elif isinstance(module, SpikingNetwork):
            if module.encoding == "bernoulli" and module.input_range == "batch":
                message = "input spikes are drawn relative to the smallest and the largest value of each batch"
                causes.append(Cause(name, "batch-dependent encoding", message))
            if module.encoding == "bernoulli" and module.training:
                causes.append(Cause(name, "chance", "in training mode, input spikes are drawn anew at every pass"))
    return causes


def left_in_training(model: nn.Module) -> list[Cause]:
    """Modules left in training mode although the model is being evaluated, if their mode can matter."""
    mode_matters = (_NormBase, _DropoutNd, SpikingNetwork, nn.RNNBase, nn.MultiheadAttention)
    return [
        Cause(name, "training mode", f"{type(module).__name__} stays in training mode when the model is evaluated")
        for name, module in model.named_modules()
        if module.training and isinstance(module, mode_matters)
    ]


@dataclass(frozen=True)
class _Call:
    """Inputs and output of one module for the watched samples."""

    name: str
    inputs: list[Tensor]
    output: Tensor


@contextmanager
def _recording(model: nn.Module, batch: int, rows: int) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def watched(value: Any) -> list[Tensor]:
        items = value if isinstance(value, (tuple, list)) else (value,)
        return [t[:rows].detach().clone() for t in items if isinstance(t, Tensor) and t.dim() and len(t) == batch]

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
    model: nn.Module, forward: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, rows: int
) -> str | None:
    """The innermost module that, from the same input, gives the same samples another output in the second batch.

    Args:
        model: whose modules are watched.
        forward: the call to look into.
        first: (batch, ...); its first ``rows`` samples are also those of ``second``.
        second: (batch, ...).
        rows: number of samples watched.

    Returns:
        The module's name (empty for the model itself), or None if no module differs beyond rounding.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU()).train()
        >>> x = torch.arange(8.0).reshape(4, 2)
        >>> first_difference(model, model, x, torch.cat([x[:2], 9 + x[2:]]), rows=2)
        '1'
    """
    recorded = []
    for batch in (first, second):
        with _recording(model, len(batch), rows) as calls:
            forward(batch)
        recorded.append(calls)
    # Calls are recorded as they return, so a module precedes those that contain it.
    for before, after in zip(*recorded, strict=False):
        if before.name != after.name:
            return None
        same_input = len(before.inputs) == len(after.inputs) and all(map(_close, before.inputs, after.inputs))
        if same_input and not _close(before.output, after.output):
            return before.name
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    scale = float(a.abs().max()) if a.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-5 * max(scale, 1e-12), equal_nan=True))


class Memory:
    """A copy of a model's tensors (parameters, buffers, plain attributes), to detect and undo changes by prediction.

    Args:
        model: whose tensors are copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies = {name: t.detach().clone() for name, t in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        for name, module in self._model.named_modules():
            prefix = f"{name}." if name else ""
            tensors.update({prefix + key: value for key, value in vars(module).items() if isinstance(value, Tensor)})
        return tensors

    def changed(self) -> list[str]:
        """Names of the tensors that have appeared, disappeared or changed."""
        now = self._tensors()
        return sorted(
            name
            for name in self._copies.keys() | now.keys()
            if name not in now
            or name not in self._copies
            or now[name].shape != self._copies[name].shape
            or not torch.equal(now[name], self._copies[name])
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the value of every parameter and buffer in place; plain attributes are left alone."""
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            if name in self._copies and tensor.shape == self._copies[name].shape:
                tensor.copy_(self._copies[name])

"""Checks of rules and batches before anything changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_meta.core.layers import check_plain
from lit_meta.core.rule import Rule, Synapses
from lit_meta.utils.validation import all_finite

# Gradients of at most this many numbers are checked as a whole.
_FEW = 4096


def check_rules(rules: Rule | Sequence[Rule]) -> tuple[Rule, ...]:
    """Checks that rules can work together, and returns them as a tuple.

    Raises:
        TypeError: something is not a rule.
        ValueError: no rule, the same rule twice, or rules that would undo or misread each other's work, in this order or any.
    """
    rules = tuple(rules) if isinstance(rules, Sequence) and not isinstance(rules, str) else (rules,)
    for rule in rules:
        if not isinstance(rule, Rule):
            hint = f"; write {rule.__name__}()" if isinstance(rule, type) and issubclass(rule, Rule) else ""
            hint = (
                "; lit_meta.rules.build_rule builds one from a name or a spec"
                if isinstance(rule, (str, dict))
                else hint
            )
            raise TypeError(f"a rule is an instance of lit_meta.Rule, got {rule!r}{hint}")
    if not rules:
        raise ValueError("no rule was given")
    if len({id(rule) for rule in rules}) < len(rules):
        raise ValueError("the same rule instance was given twice")
    local = [type(rule).__name__ for rule in rules if rule.overrides("local_error")]
    if len(local) > 1:
        raise ValueError(f"{' and '.join(local)} both set the local errors of hidden blocks: choose one")
    for position, rule in enumerate(rules):
        name = type(rule).__name__
        if rule.reads_task_gradient and local:
            raise ValueError(
                f"{name} integrates the gradient of the task's loss, and {local[0]} learns hidden layers from local errors, "
                "which are not the gradient of any loss: they cannot be combined"
            )
        for other in rules[:position] if rule.reads_task_gradient else ():
            if other.overrides("gradient"):
                first = type(other).__name__
                raise ValueError(
                    f"{name} needs the task's own gradient, which {first} has changed before it: put {name} before {first}"
                )
        for other in rules if rule.makes_update else ():
            if other is not rule and any(other.overrides(event) for event in ("gradient", "update", "local_error")):
                raise ValueError(
                    f"{name} makes the whole update of the parameters itself, so {type(other).__name__}, which changes "
                    "gradients or steps, would have no effect or a wrong one: use one of them"
                )
    return rules


def check_processes(rules: Sequence[Rule]) -> None:
    """Checks that rules whose memory depends on the batches of one process are not used in several.

    Raises:
        ValueError: they are; the weights of the processes would differ.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return
    for rule in rules:
        if "distributed" in rule.limits:
            raise ValueError(
                f"{type(rule).__name__} does not work with several processes ({rule.limits['distributed']}): use one device"
            )


def check_weights(network: nn.Module, rules: Sequence[Rule]) -> None:
    """Checks that the rules that set or read weights themselves can do so in this network.

    Raises:
        ValueError: a weight is computed from other parameters, or shared with another module where a rule sets it.
    """
    for rule in rules:
        for layers, tied in ((rule.sets_weights(network), False), (rule.reads_weights(network), True)):
            for layer in layers:
                check_plain(network, layer, type(rule).__name__, tied=tied)


def check_unsharded(network: nn.Module) -> None:
    """Checks that every process holds the whole of every parameter.

    Raises:
        ValueError: parameters are split between processes, as by FSDP.
    """
    wrapped = any(
        base.__name__ in ("FSDPModule", "FullyShardedDataParallel")
        for module in network.modules()
        for base in type(module).__mro__
    )
    for name, parameter in network.named_parameters():
        if wrapped or hasattr(parameter, "device_mesh"):
            raise ValueError(
                f"parameter {name!r} is split between processes (FSDP, tensor parallelism), and a rule's memory is of whole "
                "parameters: use DDP, which gives every process the whole network"
            )


def check_types(synapses: Synapses, types: Sequence[tuple[torch.dtype, torch.device]]) -> None:
    """Checks that parameters still have the type and the device that the experience began with.

    Raises:
        ValueError: one has another.
    """
    for position, parameter in enumerate(synapses.parameters):
        dtype, device = types[position]
        if parameter.dtype != dtype or parameter.device != device:
            raise ValueError(
                f"{synapses.names[position]!r} was {dtype} on {device} when the experience began, and is now {parameter.dtype} "
                f"on {parameter.device}: convert or move a network between experiences (end_experience first)"
            )


def check_inputs(inputs: Tensor) -> None:
    """Checks that a batch of inputs is not empty, that it is finite, and that so are sums of its squares.

    Raises:
        ValueError: it is empty, a value is NaN or infinite, or values are so large that their products overflow.
    """
    if inputs.numel() == 0:
        raise ValueError(f"the batch is empty: inputs have shape {tuple(inputs.shape)}")
    if _squares_are_finite(inputs.detach()):
        return
    if not all_finite(inputs):
        invalid = int((~torch.isfinite(inputs)).sum())
        raise ValueError(f"the inputs hold {invalid} NaN or infinite values of {inputs.numel()}; no weight was changed")
    raise ValueError(
        f"the inputs are as large as {float(inputs.detach().abs().max()):.1e}, and their products overflow "
        f"{str(inputs.dtype).removeprefix('torch.')}: scale them down; no weight was changed"
    )


def check_gradients(synapses: Synapses, *, every: bool) -> str | None:
    """What is wrong with gradients that a step should not be taken with; None if nothing is.

    Where the loss, or an error on its way back, is not finite, neither is the gradient of the bias of the layer whose outputs
    it is of, nor whole rows of its weight's. So the bias shows it, or in its absence one column of the weight.

    Args:
        synapses: whose gradients are checked.
        every: look at every number, which takes as long as a rule does that adds to the gradient.
    """
    parts = _telling_parts(synapses, every)
    if parts and parts[0][1].is_cuda and _finite_together([part for _, part in parts]):
        return None
    for name, part in parts:
        if _squares_are_finite(part):
            continue
        if not all_finite(part):
            return f"the loss, or the gradient of {name!r}, is NaN or infinite"
        return f"the gradient of {name!r} is as large as {float(part.abs().max()):.1e}, and its products overflow"
    return None


def _telling_parts(synapses: Synapses, every: bool) -> list[tuple[str, Tensor]]:
    """By parameter, the numbers of its gradient that are checked."""
    names, parts = set(synapses.names), []
    for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.dim() < 2:
            part = gradient
        elif not every and name.endswith("weight") and f"{name[:-6]}bias" in names:
            continue
        elif every or gradient.is_sparse or gradient.numel() <= _FEW:
            part = gradient.coalesce().values() if gradient.is_sparse else gradient
        else:
            part = gradient.movedim(0, -1)[(0,) * (gradient.dim() - 1)]
        parts.append((name, part))
    return parts


def _finite_together(parts: Sequence[Tensor]) -> bool:
    """Whether all sums of squares are finite, waiting for a GPU once; False where that takes a closer look."""
    if not all(part.is_floating_point() for part in parts):
        return False
    wide = [torch.float64 if part.dtype == torch.float64 else torch.float32 for part in parts]
    norms = [torch.linalg.vector_norm(part, dtype=dtype).float() for part, dtype in zip(parts, wide, strict=True)]
    return math.isfinite(float(torch.stack(norms).sum()))


def _squares_are_finite(values: Tensor) -> bool:
    """Whether the sum of squares is finite, in one cheap pass."""
    if values.dtype in (torch.float32, torch.float64):
        if values.dim() != 1:
            values = values.reshape(-1) if values.is_contiguous() else torch.linalg.vector_norm(values).reshape(1)
        return math.isfinite(values.dot(values).item())
    if not values.is_floating_point():
        return all_finite(values)
    return math.isfinite(float(torch.linalg.vector_norm(values, dtype=torch.float32)))

"""Checks of rules and batches before anything changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_meta.core.layers import check_plain
from lit_meta.core.rule import Rule
from lit_meta.utils.validation import all_finite


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


def check_inputs(inputs: Tensor) -> None:
    """Checks that a batch of inputs is not empty and finite.

    Raises:
        ValueError: it is empty, or a value is NaN or infinite.
    """
    if inputs.numel() == 0:
        raise ValueError(f"the batch is empty: inputs have shape {tuple(inputs.shape)}")
    if not all_finite(inputs):
        invalid = int((~torch.isfinite(inputs)).sum())
        raise ValueError(f"the inputs hold {invalid} NaN or infinite values of {inputs.numel()}; no weight was changed")

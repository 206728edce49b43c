"""Importances measured on the data of an experience, for the rules that consolidate by them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_meta.core.rule import Experience, Synapses
from lit_meta.functional._batch_tree import count_samples
from lit_meta.functional.per_sample import gradient_power_sums
from lit_meta.utils.validation import all_finite

# The mean over some samples by parameter name, and the number of these samples.
Part = tuple[Mapping[str, Tensor], int]


def averaged(synapses: Synapses, parts: Iterable[Part], rule: str, *, protects: bool) -> dict[str, Tensor]:
    """The mean over all samples, from the means over parts of them.

    Args:
        synapses: the parameters.
        parts: see `Part`.
        rule: the rule's name, for messages.
        protects: whether it remembers earlier experiences, so that a mean that is zero everywhere is a warning.

    Raises:
        ValueError: no samples, a mean that is not finite, or one that is zero everywhere with nothing remembered before.
    """
    sums: dict[str, Tensor] = {}
    for name, parameter in zip(synapses.names, synapses.parameters, strict=True):
        # Sums in half precision would soon stop growing.
        wide = torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype
        sums[name] = torch.zeros_like(parameter, dtype=wide, requires_grad=False)
    count = 0
    for means, samples in parts:
        for name in sums:
            sums[name].add_(means[name], alpha=samples)
        count += samples
    if count == 0:
        raise ValueError(f"{rule} consolidates on the experience's data, and there is none")
    importances = {n: (sums[n] / count).to(p.dtype) for n, p in zip(synapses.names, synapses.parameters, strict=True)}
    for name, importance in importances.items():
        if not all_finite(importance):
            raise ValueError(
                f"the importance that {rule} measures for {name!r} is not finite in {importance.dtype}: compute in a wider "
                "type, scale the loss or the inputs down, or leave out samples whose loss is not finite on its own (such as "
                "those with no label that counts)"
            )
    if not any(bool(importance.any()) for importance in importances.values()):
        why = (
            "what it differentiates has no gradient at any sample (a softmax over one output, outputs that are saturated, a "
            "path that is detached); choose another loss=, or labels='exact' where there is a choice"
        )
        if not protects:
            message = f"the importance that {rule} measures is 0 for every parameter, so that nothing would be protected: {why}"
            raise ValueError(message)
        warnings.warn(f"this experience adds nothing to what {rule} protects, its importance is 0: {why}", stacklevel=2)
    return importances


def task_parts(
    experience: Experience,
    synapses: Synapses,
    scalar: Callable[[Any], Tensor],
    *,
    power: int,
    samples: int | None = None,
    seed: int = 0,
    batches: Iterable[Any] | None = None,
) -> Iterator[Part]:
    """Batch by batch the mean of |g|^power, g the gradient of what training computes of one sample.

    Args:
        experience: whose batches are read.
        synapses: the parameters.
        scalar: of a batch, with its graph.
        power: 1 or 2.
        samples: how many, drawn from all of the experience; None for all.
        seed: of the draw.
        batches: these, in place of the experience's.
    """
    experience.check_separable()
    with experience.measuring() as owner:
        for batch in experience.batches(samples=samples, seed=seed) if batches is None else batches:
            count = count_samples(batch)
            sums = gradient_power_sums(
                scalar,
                batch,
                experience.network,
                power=power,  # type: ignore[arg-type]
                names=synapses.names,
                owner=owner,
            )
            yield {name: total / count for name, total in sums.items()}, count

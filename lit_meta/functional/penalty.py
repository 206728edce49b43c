"""The quadratic penalty that anchors parameters in proportion to their importance, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _check(strength: float, **lists: Sequence[Tensor]) -> None:
    if not strength >= 0:
        raise ValueError(f"strength must not be negative (it would push away from the anchors), got {strength}.")
    parameters = lists["parameters"]
    if not parameters:
        raise ValueError("no parameters: pass at least one.")
    for name, tensors in lists.items():
        if len(tensors) != len(parameters):
            raise ValueError(f"{len(parameters)} parameters need as many {name}, got {len(tensors)}.")
        for i, (parameter, tensor) in enumerate(zip(parameters, tensors, strict=True)):
            # Broadcasting would silently anchor a whole layer to one value.
            if parameter.shape != tensor.shape:
                raise ValueError(
                    f"{name}[{i}] has shape {tuple(tensor.shape)}, its parameter {tuple(parameter.shape)}: "
                    "both must come from the same network; has a layer grown since?"
                )


def quadratic_penalty(
    parameters: Sequence[Tensor], anchors: Sequence[Tensor], importances: Sequence[Tensor], strength: float
) -> Tensor:
    """``½ · strength · Σ Ω (θ − θ*)²`` over all entries of all parameters.

    The factor ½ is part of the definition here; libraries that leave it out need half the strength.

    Args:
        parameters: θ.
        anchors: θ*, shaped like the parameters.
        importances: Ω, shaped like the parameters.
        strength: λ, at least 0.

    Returns:
        A scalar; differentiable.

    Raises:
        ValueError: no parameters, lists or shapes that differ, or a negative strength.

    Source: Kirkpatrick et al., PNAS 114(13), 2017, equation 3.

    Example:
        >>> quadratic_penalty([torch.tensor([3.0])], [torch.tensor([1.0])], [torch.tensor([0.5])], 2.0)
        tensor(2.)
    """
    _check(strength, parameters=parameters, anchors=anchors, importances=importances)
    difference = torch._foreach_sub(list(parameters), list(anchors))
    weighted = torch._foreach_mul(torch._foreach_mul(difference, difference), list(importances))
    return 0.5 * strength * torch.stack([tensor.sum() for tensor in weighted]).sum()


@torch.no_grad()
def add_quadratic_penalty_gradient_(
    gradients: Sequence[Tensor],
    parameters: Sequence[Tensor],
    anchors: Sequence[Tensor],
    importances: Sequence[Tensor],
    strength: float,
    *,
    scratch: Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of `quadratic_penalty`, ``strength · Ω (θ − θ*)``, to the gradients, in place.

    Two fused calls over all parameters together, and one temporary of their size.

    Args:
        gradients: changed in place, shaped like the parameters.
        parameters: θ.
        anchors: θ*, shaped like the parameters.
        importances: Ω, shaped like the parameters.
        strength: λ, at least 0.
        scratch: buffers for the temporary, holding the values of the parameters on entry; overwritten. None allocates
            new memory.

    Raises:
        ValueError: no parameters, lists or shapes that differ, or a negative strength.

    Source: Kirkpatrick et al. 2017.

    Example:
        >>> gradient = torch.tensor([1.0])
        >>> add_quadratic_penalty_gradient_([gradient], [torch.tensor([3.0])], [torch.tensor([1.0])],
        ...                                 [torch.tensor([0.5])], 2.0)
        >>> gradient
        tensor([3.])
    """
    _check(strength, parameters=parameters, gradients=gradients, anchors=anchors, importances=importances)
    if scratch is None:
        difference = list(torch._foreach_sub(list(parameters), list(anchors)))
    else:
        difference = list(scratch)
        torch._foreach_sub_(difference, list(anchors))
    torch._foreach_addcmul_(list(gradients), difference, list(importances), value=float(strength))

"""The diagonal of the Fisher information, from per-sample gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_meta.functional.per_sample import mean_power

Labels = Literal["true", "sample", "exact"]
Loss = Literal["cross_entropy", "mse"]


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

    Squaring the gradient of a batch mean instead would give a quantity that shrinks with the batch size; this one
    does not depend on how samples are batched. The network is in eval mode during the computation, so that
    normalisation layers treat every sample separately, and is restored afterwards.

    For networks of Linear layers it takes one matrix product per layer, see `lit_meta.functional.per_sample`.

    Args:
        network: returns (batch, classes) for `inputs`. Only parameters that require a gradient are considered.
        inputs: (samples, ...).
        targets: (samples,) class indices, or (samples, classes) in the dtype of the output. Used for
            ``labels="true"`` only.
        labels: where the targets come from. ``"true"``: the data (the empirical Fisher). ``"sample"``: drawn
            from the network's own prediction. ``"exact"``: the expectation over it, a backward pass for each
            class.
        loss: ``"cross_entropy"`` on logits, a categorical prediction; ``"mse"``, ``½ ‖f(x) − y‖²`` summed
            over the outputs, a Gaussian prediction of unit variance.
        names: the parameters to include (default: all that require a gradient).
        chunk_size: samples at once; None chooses by memory. It does not change the result.
        generator: source of the randomness of ``labels="sample"``, on the device of the output.

    Returns:
        E[g²] for each parameter, by name, in the parameter's shape.

    Raises:
        ValueError: no samples, targets missing or of the wrong shape, unknown labels, loss or names, an
            output that is not (batch, classes), or no parameter that requires a gradient.

    Source: Kirkpatrick et al., PNAS 114(13), 2017; Kunstner et al., NeurIPS 2019 (why the three labels
    differ).

    Example:
        >>> network = nn.Linear(3, 2)
        >>> fisher = diagonal_fisher(network, torch.randn(8, 3), labels="exact")
        >>> {name: tuple(values.shape) for name, values in fisher.items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
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

    def cotangents(output: Tensor, start: int) -> Iterator[Tensor]:
        chunk = targets[start : start + len(output)] if labels == "true" and targets is not None else None
        return _cotangents(output, chunk, labels, loss, generator)

    return mean_power(network, inputs, cotangents, power=2, names=names, chunk_size=chunk_size)


def _cotangents(
    output: Tensor, targets: Tensor | None, labels: str, loss: str, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Vectors v (batch, classes) such that the squares of ``Jᵀv``, summed over the vectors, are E[g²]."""
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

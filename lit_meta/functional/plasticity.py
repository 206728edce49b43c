"""Measures of whether a network can still learn: accuracy against a fresh network, dormant units, effective rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def plasticity(matrix: Tensor, fresh: Tensor) -> Tensor:
    """Accuracy on each experience just after learning it, minus that of a fresh network trained on it alone.

    ``mean_{i <= k} (R[i, i] - f[i])``: 0 if the network learns as well as it did at first, below 0 if it has lost
    plasticity, above 0 if earlier learning helps.

    Args:
        matrix: accuracies R, ``(experiences, experiences)``; rows after the last measured one, k, are NaN.
        fresh: accuracies f of fresh networks, ``(experiences,)``.

    Returns:
        A scalar, from -1 to 1.

    Raises:
        ValueError: shapes that do not match, or an entry that is needed but was not measured.

    Source: the comparison with a freshly initialised network of Dohare et al., Loss of plasticity in deep continual
        learning, Nature 632, 2024, as a difference of accuracies. (The intransigence of Chaudhry et al., ECCV 2018, has the
        other sign and compares with a network trained on all experiences so far.)

    Example:
        >>> plasticity(torch.tensor([[1.0, 0.0], [0.5, 0.75]]), torch.tensor([1.0, 1.0]))  # (0 - 0.25) / 2
        tensor(-0.1250)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.is_floating_point():
        raise ValueError(
            f"expected a square floating-point accuracy matrix, got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if fresh.shape != matrix.shape[:1]:
        raise ValueError(
            f"expected the accuracies of fresh networks to be ({len(matrix)},), got {tuple(fresh.shape)}: train a fresh "
            "network on each experience alone"
        )
    measured = (~matrix.isnan()).any(1).nonzero()
    if len(measured) == 0:
        raise ValueError("no accuracy was measured: every entry of the matrix is NaN")
    last = int(measured[-1]) + 1
    differences = matrix.diagonal()[:last] - fresh[:last]
    if differences.isnan().any():
        raise ValueError(
            f"plasticity needs the accuracy of this network and of a fresh one on each of the {last} experiences learned; "
            f"{int(differences.isnan().sum())} were not measured (NaN)"
        )
    return differences.mean()


def dormancy_score(activity: Tensor) -> Tensor:
    """Mean activity of each unit relative to that of its layer: ``s_i = E|h_i| / (1/H sum_k E|h_k|)``.

    Args:
        activity: either the outputs h of a layer's units, ``(samples, units)``, or their mean absolute values E|h|,
            ``(units,)``, which must not be negative.

    Returns:
        ``(units,)``, with mean 1; all 0 for a layer that is silent.

    Raises:
        ValueError: another shape, no samples, or a negative mean.

    Source: Sokar, Agarwal, Castro & Evci, The dormant neuron phenomenon in deep reinforcement learning, ICML 2023,
        equation 1.

    Example:
        >>> dormancy_score(torch.tensor([[0.0, 2.0, -1.0], [0.0, 2.0, 1.0]]))
        tensor([0., 2., 1.])
    """
    if activity.ndim not in (1, 2) or 0 in activity.shape or not activity.is_floating_point():
        raise ValueError(
            "expected floating-point activity (samples, units) or its means (units,), got "
            f"{activity.dtype} of shape {tuple(activity.shape)}"
        )
    means = activity.abs().mean(0) if activity.ndim == 2 else activity
    if bool((means < 0).any()):
        raise ValueError("means of absolute activities cannot be negative; pass activity (samples, units) instead")
    average = means.mean()
    return torch.where(average > 0, means / average, torch.zeros_like(means))


def dormant_fraction(layers: Tensor | Sequence[Tensor], *, threshold: float = 0.025) -> Tensor:
    """Share of units, over all layers, whose dormancy score is at most the threshold.

    Args:
        layers: for each layer (or for a single one) the activity that `dormancy_score` takes.
        threshold: tau; 0 counts only the units that are never active.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ValueError: no layer, a negative threshold, or activity that `dormancy_score` rejects.

    Source: Sokar et al., ICML 2023, definition 3.1 (tau-dormant neurons).

    Example:
        >>> dormant_fraction([torch.tensor([0.0, 2.0, 1.0]), torch.tensor([3.0])])
        tensor(0.2500)
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    parts = [layers] if isinstance(layers, Tensor) else list(layers)
    if not parts:
        raise ValueError("no layer was given")
    dormant = torch.cat([dormancy_score(part) <= threshold for part in parts])
    return dormant.to(parts[0].dtype).mean()


def effective_rank(features: Tensor) -> Tensor:
    """``exp(-sum_i p_i ln p_i)``, p the singular values of the features divided by their sum.

    Ranges from 1 (all samples on one line) to min(samples, units) (equal spread in all directions), and is invariant to
    scaling and rotating the features.

    Args:
        features: representation of the samples, ``(samples, units)``; not centred.

    Returns:
        A scalar; 0 for features that are all zero.

    Raises:
        ValueError: another shape, or values that are not finite.

    Source: Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, equation 4.

    Example:
        >>> round(effective_rank(torch.eye(3)).item(), 4), round(effective_rank(torch.ones(5, 3)).item(), 4)
        (3.0, 1.0)
    """
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"expected floating-point features (samples, units), got {features.dtype} of shape {tuple(features.shape)}"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("the features contain NaN or infinite values")
    return rank_of_spectrum(torch.linalg.svdvals(features))


def rank_of_spectrum(singular_values: Tensor) -> Tensor:
    """The effective rank of a matrix with the given singular values; see `effective_rank`.

    Args:
        singular_values: ``(values,)``, at least 0.

    Returns:
        A scalar; 0 where all are 0.

    Raises:
        ValueError: a negative value, or no values.

    Example:
        >>> round(rank_of_spectrum(torch.tensor([2.0, 2.0, 0.0])).item(), 4)
        2.0
    """
    if singular_values.ndim != 1 or len(singular_values) == 0 or bool((singular_values < 0).any()):
        raise ValueError(
            f"expected singular values (values,), none negative, got {tuple(singular_values.shape)}: {singular_values}"
        )
    total = singular_values.sum()
    if not total > 0:
        return singular_values.new_zeros(())
    # entr(p) is -p ln p, and 0 at p = 0.
    return torch.special.entr(singular_values / total).sum().exp()


__all__ = ["dormancy_score", "dormant_fraction", "effective_rank", "plasticity", "rank_of_spectrum"]

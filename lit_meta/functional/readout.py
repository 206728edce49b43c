"""Linear readouts in closed form from sums over samples: ridge regression and linear discriminant analysis.

All functions take the same sufficient statistics, which add up over samples in any order: the second moment of the
features, their sum for each class, and the number of samples of each class.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_meta.functional._eigen import symmetric_eigen
from lit_meta.functional.scatter import Scatter, solve_regularized


class Readout(NamedTuple):
    """A linear readout.

    Attributes:
        weight: (classes, features).
        bias: (classes,).
    """

    weight: Tensor
    bias: Tensor


class CenteredMoments(NamedTuple):
    """Second-order statistics about the mean over all samples.

    Attributes:
        scatter: Σ (h − m)(h − m)ᵀ, of (features, features).
        class_sums: Σ over the samples of class c of (h − m), (classes, features).
        mean: m, (features,).
    """

    scatter: Scatter
    class_sums: Tensor
    mean: Tensor


def centered_moments(second_moment: Scatter | Tensor, class_sums: Tensor, class_counts: Tensor) -> CenteredMoments:
    """Centres raw moments at the mean of all samples.

    ``Σ (h − m)(h − m)ᵀ = Σ h hᵀ − n m mᵀ``: a difference that loses digits where the mean is large relative to the
    spread. To avoid that, subtract a constant near the mean from the features before summing; the mean returned is then
    ``m`` minus that constant.

    Args:
        second_moment: Σ h hᵀ: a `Scatter`, or (features, features), of which only the lower triangle is read. It is not copied.
        class_sums: Σ over the samples of class c of h, (classes, features).
        class_counts: samples of each class, (classes,).

    Returns:
        The centred moments.

    Raises:
        ValueError: no samples.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        >>> centered_moments(h.T @ h, h, torch.tensor([1.0, 1.0])).scatter.dense()
        tensor([[2., 0.],
                [0., 0.]])
    """
    samples = class_counts.sum()
    if not samples > 0:
        raise ValueError("there are no samples to centre")
    mean = class_sums.sum(0) / samples
    scatter = second_moment if isinstance(second_moment, Scatter) else Scatter.of(second_moment)
    scatter = scatter.plus(mean.unsqueeze(0), -samples.unsqueeze(0).to(mean.dtype))
    return CenteredMoments(scatter, torch.addr(class_sums, class_counts, mean, alpha=-1.0), mean)


def ridge_readout(moments: CenteredMoments, class_counts: Tensor, ridge: float) -> Readout:
    """Ridge regression of the one-hot labels, with an intercept that is not penalised.

    ``W = B (S + λ I)⁻¹`` with B the class sums and S the scatter, both centred; ``b = n_c / n − W m``. A class without
    samples gets zero weights; since the outputs of each sample add up to 1, it is never predicted.

    Args:
        moments: of the features, from `centered_moments`.
        class_counts: samples of each class, (classes,).
        ridge: λ, above 0.

    Returns:
        The readout.

    Raises:
        ValueError: a ridge that is not above 0, or one too small for the scatter to be factorised in its precision.

    Example:
        >>> h, y = torch.tensor([[-1.0], [1.0]]), torch.eye(2)
        >>> moments = centered_moments(h.T @ h, y.T @ h, torch.ones(2))
        >>> ridge_readout(moments, torch.ones(2), 2.0)
        Readout(weight=tensor([[-0.2500],
                [ 0.2500]]), bias=tensor([0.5000, 0.5000]))
    """
    if ridge > 0 and not bool(moments.scatter.diagonal().any()):
        # Constant features carry no information; there is nothing to factorise.
        weight = torch.zeros_like(moments.class_sums)
    else:
        weight = solve_regularized(moments.scatter, ridge, moments.class_sums.T).T
    return Readout(weight, class_counts / class_counts.sum() - weight @ moments.mean)


def cross_validated_ridge(
    moments: CenteredMoments, class_counts: Tensor, *, precision: float = torch.finfo(torch.float32).eps
) -> float:
    r"""The ridge that generalised cross-validation chooses, from the same statistics; no held-out sample is needed.

    .. math:: GCV(λ) = \frac{n \, RSS(λ)}{(n - tr A(λ))^2}, \quad
        tr A(λ) = 1 + \sum_i \frac{s_i}{s_i + λ}

    with :math:`s_i` the eigenvalues of the scatter and the 1 for the intercept. There are 8 candidates per decade, from
    the mean eigenvalue down to the rounding error of the largest. One eigendecomposition, which takes O(features³) operations
    and several square matrices of memory.

    Args:
        moments: of the features, from `centered_moments`.
        class_counts: samples of each class, (classes,).
        precision: relative error of the products in the scatter; by default that of float32 features.

    Returns:
        λ, above 0.

    Source:
        Golub, Heath and Wahba, Technometrics 21(2), 1979, equation 1.4.

    Example:
        >>> h = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> y = torch.nn.functional.one_hot((h[:, 0] > 0).long(), 2).double()
        >>> cross_validated_ridge(centered_moments(h.T @ h, y.T @ h, y.sum(0)), y.sum(0)) < 10.0
        True
    """
    eigenvalues, vectors = symmetric_eigen(moments.scatter.dense())
    eigenvalues = eigenvalues.clamp(min=0.0)
    mean, largest = float(eigenvalues.mean()), float(eigenvalues[-1])
    samples = float(class_counts.sum())
    signal = (moments.class_sums @ vectors).square().sum(0)
    total = float((class_counts - class_counts.square() / samples).sum())
    if not mean > 0 or not total > 0:
        return max(mean, 1.0)  # Constant features or a single class: the weights are zero whatever the ridge.
    lowest = math.log10(min(8.0 * precision * largest / mean, 1.0))
    steps = torch.linspace(lowest, 0.0, 1 + math.ceil(-8 * lowest), dtype=eigenvalues.dtype, device=eigenvalues.device)
    candidates = (mean * 10.0**steps).unsqueeze(1)
    damped = eigenvalues + candidates
    residual = total - (signal * (eigenvalues + 2 * candidates) / damped.square()).sum(1)
    freedom = samples - 1 - (eigenvalues / damped).sum(1)
    score = samples * residual.clamp(min=0.0) / freedom.square()
    # With as many features as samples, small ridges interpolate: 0 / 0 says nothing about generalisation.
    score = torch.where(freedom > 1e-6 * samples, score, torch.inf)
    return float(candidates[int(score.argmin())])


def discriminant_readout(
    moments: CenteredMoments,
    class_counts: Tensor,
    *,
    shrinkage: float | None = None,
    uniform_prior: bool = False,
) -> Readout:
    r"""Linear discriminant analysis: Gaussian classes of one shared covariance.

    .. math:: w_c = Σ^{-1} μ_c, \quad b_c = -\tfrac12 μ_c^T Σ^{-1} μ_c + \log π_c, \quad
        Σ = (1 - s) \frac{S_W}{n} + s \frac{tr S_W}{n \, features} I

    with :math:`S_W = S - \sum_c n_c μ_c μ_c^T` the scatter within classes. A class without samples gets the mean of the
    other classes' weights and less than the mean of their biases, so that it is never predicted.

    Args:
        moments: of the features, from `centered_moments`.
        class_counts: samples of each class, (classes,).
        shrinkage: s in (0, 1]; None takes the oracle-approximating shrinkage of the same statistics.
        uniform_prior: takes all classes seen as equally likely, rather than as likely as they were frequent.

    Returns:
        The readout.

    Raises:
        ValueError: a shrinkage that leaves the covariance singular.

    Source:
        Hayes and Kanan, "Lifelong machine learning with deep streaming linear discriminant analysis", CVPR Workshops
        2020; shrinkage: Chen et al., IEEE Trans. Signal Processing 58(10), 2010, equation 23 without its terms in
        2 / features, as in scikit-learn.

    Example:
        >>> h, y = torch.tensor([[-2.0], [0.0], [1.0], [3.0]]), torch.eye(2).repeat_interleave(2, 0)
        >>> moments = centered_moments(h.T @ h, y.T @ h, torch.tensor([2.0, 2.0]))
        >>> discriminant_readout(moments, torch.tensor([2.0, 2.0]), shrinkage=1.0).weight
        tensor([[-1.5000],
                [ 1.5000]])
    """
    seen = class_counts > 0
    samples, features = float(class_counts.sum()), moments.scatter.features
    means = moments.class_sums[seen] / class_counts[seen].unsqueeze(1)
    within = moments.scatter.plus(means, -class_counts[seen])
    trace = float(within.diagonal().sum()) / samples
    if shrinkage is None:
        shrinkage = _oracle_shrinkage(float(within.square()) / samples**2, trace, features, samples)
    if shrinkage <= 0.0:
        raise ValueError(f"the shrinkage must be above 0, got {shrinkage}")
    if not trace > 0:
        seen_weight = means
    elif shrinkage >= 1.0:
        seen_weight = means * (features / trace)
    else:
        # Σ = (1 − s) / n · (S_W + r I)
        share = (1.0 - shrinkage) / samples
        seen_weight = solve_regularized(within, shrinkage * trace / features / share, means.T).T / share
    prior = class_counts[seen].log() - torch.tensor(samples).log()
    seen_bias = -0.5 * (seen_weight * means).sum(1) - seen_weight @ moments.mean
    seen_bias = seen_bias if uniform_prior else seen_bias + prior
    weight = seen_weight.mean(0).repeat(len(class_counts), 1)
    bias = (seen_bias.mean() - 1.0).repeat(len(class_counts))
    weight[seen], bias[seen] = seen_weight, seen_bias
    return Readout(weight, bias)


def oracle_approximating_shrinkage(covariance: Tensor, samples: float) -> float:
    """How far to shrink an empirical covariance towards a multiple of the identity.

    Args:
        covariance: (features, features); only its lower triangle is read.
        samples: number of samples it was estimated from.

    Returns:
        The shrinkage, in (0, 1].

    Source:
        Chen et al., IEEE Trans. Signal Processing 58(10), 2010, equation 23, for many features.

    Example:
        >>> oracle_approximating_shrinkage(torch.eye(3), 10.0)
        1.0
    """
    diagonal = covariance.diagonal()
    square = float(2 * covariance.tril(-1).square().sum() + diagonal.square().sum())
    return _oracle_shrinkage(square, float(diagonal.sum()), covariance.shape[0], samples)


def _oracle_shrinkage(square: float, trace: float, features: int, samples: float) -> float:
    """From the sum of the covariance's squared elements, and its trace."""
    square, mean = square / features**2, (trace / features) ** 2
    excess = (samples + 1) * (square - mean / features)
    return 1.0 if excess <= 0 else min((square + mean) / excess, 1.0)

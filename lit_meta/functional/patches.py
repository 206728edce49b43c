"""Local, label-free learning of filters: contrast normalisation, whitening, competitive Hebbian learning."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_meta.functional._eigen import symmetric_eigen


def contrast_normalize(patches: Tensor, contrast: float) -> Tensor:
    """``(p − mean(p)) / √(var(p) + contrast)`` of every patch.

    Args:
        patches: (patches, values).
        contrast: variance that counts as noise, above 0, in squared units of intensity.

    Returns:
        (patches, values).

    Source:
        Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS 2011.

    Example:
        >>> contrast_normalize(torch.tensor([[0.0, 2.0], [5.0, 5.0]]), 3.0)
        tensor([[-0.5000,  0.5000],
                [ 0.0000,  0.0000]])
    """
    centered = patches - patches.mean(1, keepdim=True)
    return centered * (centered.square().mean(1, keepdim=True) + contrast).rsqrt()


def whitening_matrix(covariance: Tensor, floor: float) -> Tensor:
    """The symmetric matrix that decorrelates: ``V (Λ + floor)^−½ Vᵀ``.

    Args:
        covariance: V Λ Vᵀ, (values, values).
        floor: added to every eigenvalue, above 0, so that noise is not amplified.

    Returns:
        (values, values).

    Example:
        >>> whitening_matrix(torch.diag(torch.tensor([3.0, 0.0])), 1.0)
        tensor([[0.5000, 0.0000],
                [0.0000, 1.0000]])
    """
    values, vectors = symmetric_eigen(covariance)
    return (vectors * (values.clamp(min=0.0) + floor).rsqrt()) @ vectors.T


def competitive_hebbian(patches: Tensor, directions: Tensor, history: Tensor, *, sweeps: int) -> tuple[Tensor, Tensor]:
    r"""Units compete for patches, and the winner alone moves towards its patch: spherical k-means with a history.

    Unit k wins the patches that drive it most, and its direction is the normalised Hebbian sum over all it has won,

    .. math:: d_k \propto h_k + \sum_{z: k = \arg\max_j d_j z} (d_k z)_+ \, z

    so that a new patch turns it by about 1 / |h_k|: the plasticity of a unit falls with its use. Within one call the
    assignment is repeated over the same patches; the history h holds those of earlier calls.

    Args:
        patches: z, whitened, (patches, values).
        directions: d, unit vectors, (units, values).
        history: h, the Hebbian sums of earlier calls, (units, values).
        sweeps: repetitions of the assignment, at least 1.

    Returns:
        The new directions, and the history including this call's patches, both (units, values). A unit that has never
        won keeps its direction.

    Example:
        >>> z = torch.tensor([[2.0, 0.1], [1.0, -0.1], [0.0, 3.0]])
        >>> directions, _ = competitive_hebbian(z, torch.eye(2), torch.zeros(2, 2), sweeps=2)
        >>> directions.round(decimals=2)
        tensor([[1.0000, 0.0200],
                [0.0000, 1.0000]])
    """
    total = history
    for _ in range(sweeps):
        drive, winner = (patches @ directions.T).max(1)
        strength = drive.clamp(min=0.0)
        if history.is_cuda:  # There index_add adds in an order of its own each time, and no run could be remade.
            wins = torch.zeros(len(history), len(patches), dtype=history.dtype, device=history.device)
            total = history + wins.scatter_(0, winner.unsqueeze(0), strength.unsqueeze(0)) @ patches
        else:
            total = history.index_add(0, winner, patches * strength.unsqueeze(1))
        norm = total.norm(dim=1, keepdim=True)
        directions = torch.where(norm > 0, total / norm.clamp(min=torch.finfo(norm.dtype).tiny), directions)
    return directions, total

r"""Continual-learning measures as pure functions of the accuracy matrix.

``R[i, j]`` is the accuracy on test experience j after training experience i (both counted from 0), NaN where
it was not measured. While a stream is still running, its later rows are unmeasured; every measure is taken at
the last measured row, k below. A measure that needs an unmeasured entry raises.
"""

from __future__ import annotations

import torch
from torch import Tensor


def final_accuracies(matrix: Tensor) -> Tensor:
    """Accuracy on every test experience at the end: R[k, :].

    Args:
        matrix: accuracies R, ``(training experiences, test experiences)``.

    Returns:
        ``(test experiences,)``, NaN where not measured.

    Raises:
        ValueError: if nothing was measured, or if the matrix is not a floating-point matrix.

    Example:
        >>> final_accuracies(torch.tensor([[1.0, 0.0], [0.5, 0.75]]))
        tensor([0.5000, 0.7500])
    """
    return matrix[_last_row(matrix)]


def average_accuracy(matrix: Tensor) -> Tensor:
    """Mean accuracy over all test experiences at the end: mean_j R[k, j].

    Every experience counts the same, however many samples it has. (The stream accuracy of Avalanche counts
    every *sample* the same, so the two differ where the experiences differ in size.)

    Args:
        matrix: accuracies R, ``(training experiences, test experiences)``.

    Returns:
        A scalar.

    Raises:
        ValueError: if an entry of the last measured row was not measured.

    Source:
        Lopez-Paz & Ranzato, Gradient episodic memory for continual learning, NeurIPS 2017, equation 2.

    Example:
        >>> average_accuracy(torch.tensor([[1.0, 0.0], [0.5, 0.75]]))
        tensor(0.6250)
    """
    return _measured(final_accuracies(matrix), "average_accuracy", "the last row").mean()


def anytime_accuracy(matrix: Tensor) -> Tensor:
    """Accuracy on the experiences seen so far, averaged over the stream: mean_{i <= k} mean_{j <= i} R[i, j].

    Args:
        matrix: accuracies R, ``(experiences, experiences)``.

    Returns:
        A scalar.

    Raises:
        ValueError: if the matrix is not square, or if an entry on or below the diagonal was not measured.

    Source:
        Rebuffi et al., iCaRL, CVPR 2017 (there: average incremental accuracy).

    Example:
        >>> anytime_accuracy(torch.tensor([[1.0, 0.0], [0.5, 0.75]]))  # (1 + 0.625) / 2
        tensor(0.8125)
    """
    seen = _square(matrix, "anytime_accuracy")
    rows = len(seen)
    lower = torch.ones(rows, rows, dtype=torch.bool, device=matrix.device).tril()
    _measured(seen[lower], "anytime_accuracy", "the entries on and below the diagonal")
    counts = torch.arange(1, rows + 1, dtype=matrix.dtype, device=matrix.device)
    return (torch.where(lower, seen, torch.zeros_like(seen)).sum(1) / counts).mean()


def minimum_accuracy(matrix: Tensor) -> Tensor:
    """Worst accuracy on each earlier experience since it was learned, averaged: mean_{j < k} min_{j < i <= k} R[i, j].

    Args:
        matrix: accuracies R, ``(experiences, experiences)``.

    Returns:
        A scalar; NaN after a single experience, which has none before it.

    Raises:
        ValueError: if the matrix is not square, or if an entry below the diagonal was not measured.

    Source:
        De Lange, van de Ven & Tuytelaars, Continual evaluation for lifelong learning, ICLR 2023 (min-ACC,
        with one evaluation per experience; evaluating more often, as they do, can only lower it).

    Example:
        >>> matrix = torch.tensor([[1.0, 0.0, 0.0], [0.25, 1.0, 0.0], [0.5, 0.75, 1.0]])
        >>> minimum_accuracy(matrix)  # (0.25 + 0.75) / 2
        tensor(0.5000)
    """
    seen = _square(matrix, "minimum_accuracy")
    rows = len(seen)
    lower = torch.ones(rows, rows, dtype=torch.bool, device=matrix.device).tril(-1)
    _measured(seen[lower], "minimum_accuracy", "the entries below the diagonal")
    return torch.where(lower, seen, torch.full_like(seen, torch.inf)).amin(0)[:-1].mean()


def forgetting(matrix: Tensor) -> Tensor:
    """Accuracy lost since each experience was learned: mean_{j < k} (R[j, j] - R[k, j]).

    This is what Avalanche's `StreamForgetting` reports after training experience k. (It is not the forgetting
    of Chaudhry et al., 2018, who use the best accuracy so far instead of R[j, j].)

    Args:
        matrix: accuracies R, ``(experiences, experiences)``.

    Returns:
        A scalar; 0 after a single experience, as in Avalanche.

    Raises:
        ValueError: if the matrix is not square, or if an entry it needs was not measured.

    Source:
        Avalanche 0.6, evaluation/metrics/forgetting_bwt.py.

    Example:
        >>> forgetting(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
        tensor(0.7500)
    """
    seen = _square(matrix, "forgetting")
    learned = _measured(seen.diagonal()[:-1], "forgetting", "the diagonal")
    last = _measured(seen[-1, :-1], "forgetting", "the last row")
    return _mean_or_zero(learned - last)


def backward_transfer(matrix: Tensor) -> Tensor:
    """Effect of later experiences on earlier ones: mean_{j < k} (R[k, j] - R[j, j]), the negative of `forgetting`.

    Args:
        matrix: accuracies R, ``(experiences, experiences)``.

    Returns:
        A scalar; 0 after a single experience, as in Avalanche.

    Raises:
        ValueError: if the matrix is not square, or if an entry it needs was not measured.

    Source:
        Lopez-Paz & Ranzato, NeurIPS 2017, equation 3; Avalanche's `StreamBWT`.

    Example:
        >>> backward_transfer(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
        tensor(-0.7500)
    """
    return 0 - forgetting(matrix)


def forward_transfer(matrix: Tensor, initial: Tensor) -> Tensor:
    """Effect of earlier experiences on the next one: mean_{1 <= j <= min(k + 1, T - 1)} (R[j - 1, j] - b[j]).

    T is the number of experiences, b the accuracy before any training. This is what Avalanche's
    `StreamForwardTransfer` reports after training experience k.

    Args:
        matrix: accuracies R, ``(experiences, experiences)``.
        initial: accuracies b before any training, ``(experiences,)``.

    Returns:
        A scalar; 0 for a stream of one experience, as in Avalanche.

    Raises:
        ValueError: if the shapes do not match, or if an entry it needs was not measured.

    Source:
        Lopez-Paz & Ranzato, NeurIPS 2017, equation 4; Avalanche 0.6, evaluation/metrics/forward_transfer.py.

    Example:
        >>> forward_transfer(torch.tensor([[1.0, 0.5], [0.25, 0.75]]), torch.tensor([0.1, 0.25]))
        tensor(0.2500)
    """
    rows = len(_square(matrix, "forward_transfer"))
    if initial.shape != matrix.shape[1:]:
        raise ValueError(
            f"expected the accuracies before training to be ({matrix.shape[1]},), one for each test experience, "
            f"got {tuple(initial.shape)}"
        )
    before = _measured(initial[1 : rows + 1], "forward_transfer", "the accuracies before training")
    ahead = _measured(matrix.diagonal(1)[:rows], "forward_transfer", "the diagonal above the main one")
    return _mean_or_zero(ahead - before)


def _last_row(matrix: Tensor) -> int:
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise ValueError(
            "expected a floating-point matrix (training experiences, test experiences), got "
            f"{matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    rows = (~matrix.isnan()).any(1).nonzero()
    if len(rows) == 0:
        raise ValueError("no accuracy was measured: every entry of the matrix is NaN")
    return int(rows[-1])


def _square(matrix: Tensor, name: str) -> Tensor:
    """The rows and columns up to the last measured row, of a matrix that has to be square."""
    last = _last_row(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"{name} compares each training experience with the test experience at the same position, and "
            f"needs a square matrix; got {tuple(matrix.shape)}"
        )
    return matrix[: last + 1, : last + 1]


def _measured(values: Tensor, name: str, what: str) -> Tensor:
    if values.isnan().any():
        raise ValueError(
            f"{name} needs {what}, where {int(values.isnan().sum())} of {values.numel()} entries were not "
            "measured (NaN); test on these experiences too"
        )
    return values


def _mean_or_zero(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.new_zeros(())


__all__ = [
    "anytime_accuracy",
    "average_accuracy",
    "backward_transfer",
    "final_accuracies",
    "forgetting",
    "forward_transfer",
    "minimum_accuracy",
]

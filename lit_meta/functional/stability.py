r"""Forgetting *while* a new experience is learned, as pure functions of a trace of accuracies.

``A[i, n, j]`` is the accuracy on test experience j at the n-th evaluation within training experience i (all counted from
0), NaN where there was no such evaluation. Experiences may have different numbers of evaluations; the last evaluation
within an experience is its end.
"""

from __future__ import annotations

import torch
from torch import Tensor


def end_matrix(trace: Tensor) -> Tensor:
    """The accuracy matrix of a trace: the last evaluation within each training experience.

    Args:
        trace: accuracies A, ``(training experiences, evaluations, test experiences)``.

    Returns:
        ``(training experiences, test experiences)``, NaN in the rows of experiences that were never evaluated.

    Raises:
        ValueError: not such a trace; a missing evaluation followed by a measured one, or an evaluation that leaves out a
            test experience.

    Example:
        >>> end_matrix(torch.tensor([[[0.5, 0.0], [1.0, 0.0]], [[0.2, 1.0], [float("nan")] * 2]]))
        tensor([[1.0000, 0.0000],
                [0.2000, 1.0000]])
    """
    counts = _evaluations(trace)
    last = (counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, trace.shape[2])
    return trace.gather(1, last).squeeze(1)


def stability_gap(trace: Tensor) -> Tensor:
    r"""Transient forgetting: accuracy lost while an experience is learned and regained by its end.

    For training experience i and an earlier experience j, with R the accuracies at the ends of experiences,

    ``gap(i, j) = max(0, min(R[i-1, j], R[i, j]) - min_n A[i, n, j])``,

    the depth of the dip below both ends, which evaluating only at the ends of experiences cannot see. The value is the
    mean over all i >= 1 and j < i.

    Args:
        trace: accuracies A, ``(experiences, evaluations, experiences)``, evaluated within the experiences.

    Returns:
        A scalar, at least 0; 0 after a single experience.

    Raises:
        ValueError: not a square trace, or a missing evaluation.

    Source: De Lange, van de Ven & Tuytelaars, Continual evaluation for lifelong learning, ICLR 2023, who name the
        phenomenon and measure it by min-ACC and WC-ACC (`minimum_accuracy_within`, `worst_case_accuracy`); this
        single-number summary is ours.

    Example:
        >>> first, second = [[1.0, 0.0], [1.0, 0.0]], [[0.25, 0.5], [0.75, 1.0]]
        >>> stability_gap(torch.tensor([first, second]))  # from 1 down to 0.25, and back to 0.75
        tensor(0.5000)
    """
    ends = _square_ends(trace, "stability_gap")
    rows = len(ends)
    if rows == 1:
        return trace.new_zeros(())
    lowest = torch.where(trace.isnan(), torch.inf, trace).amin(1)[:rows]
    floor = torch.minimum(ends[:-1], ends[1:])
    gaps = (floor - lowest[1:, : trace.shape[2]]).clamp(min=0)
    earlier = torch.ones_like(gaps, dtype=torch.bool).tril()
    return gaps[earlier].mean()


def minimum_accuracy_within(trace: Tensor) -> Tensor:
    """min-ACC: the mean over earlier experiences j < k of the worst accuracy at any evaluation after j was learned.

    ``mean_{j < k} min_{i > j, n} A[i, n, j]``, k the last experience that was evaluated.

    Args:
        trace: accuracies A, ``(experiences, evaluations, experiences)``.

    Returns:
        A scalar; NaN after a single experience, where there is none before it.

    Raises:
        ValueError: not a square trace, or a missing evaluation.

    Source: De Lange et al., ICLR 2023, equation 2. With one evaluation an experience it is
        `lit_meta.functional.matrix.minimum_accuracy`.

    Example:
        >>> first, second = [[1.0, 0.0], [1.0, 0.0]], [[0.25, 0.5], [0.75, 1.0]]
        >>> minimum_accuracy_within(torch.tensor([first, second]))
        tensor(0.2500)
    """
    rows = len(_square_ends(trace, "minimum_accuracy_within"))
    lowest = torch.where(trace.isnan(), torch.inf, trace).amin(1)[:rows, :rows]
    later = torch.ones_like(lowest, dtype=torch.bool).tril(-1)
    return torch.where(later, lowest, torch.inf).amin(0)[:-1].mean()


def worst_case_accuracy(trace: Tensor) -> Tensor:
    """WC-ACC: ``R[k, k] / (k + 1) + (1 - 1 / (k + 1)) min-ACC``, the trade between learning now and never dropping.

    Args:
        trace: accuracies A, ``(experiences, evaluations, experiences)``.

    Returns:
        A scalar, a lower bound of the average accuracy over the k + 1 experiences seen.

    Raises:
        ValueError: not a square trace, or a missing evaluation.

    Source: De Lange et al., ICLR 2023, equation 3.

    Example:
        >>> first, second = [[1.0, 0.0], [1.0, 0.0]], [[0.25, 0.5], [0.75, 1.0]]
        >>> worst_case_accuracy(torch.tensor([first, second]))  # 1 / 2 + 0.25 / 2
        tensor(0.6250)
    """
    ends = _square_ends(trace, "worst_case_accuracy")
    rows = len(ends)
    learned = ends[-1, rows - 1]
    return learned if rows == 1 else learned / rows + (1 - 1 / rows) * minimum_accuracy_within(trace)


def average_anytime_accuracy(trace: Tensor, *, of_all: bool | None = False) -> Tensor:
    r"""AAA: the accuracy at any time of the stream, on what has been presented by then.

    The mean over all evaluations, of all experiences, of the mean accuracy on the test experiences 0 to i, with i the training
    experience that is being learned: ``mean_(i, n) mean_(j <= i) A[i, n, j]``.

    Args:
        trace: accuracies A, ``(training experiences, evaluations, test experiences)``, evaluated within the experiences.
        of_all: take the mean over all test experiences instead, as for a stream in which no training experience belongs to a
            test experience; None: where there are more training than test experiences.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: not such a trace, or one that is not square without ``of_all``.

    Source: Caccia, Aljundi, Asadi, Tuytelaars, Pineau & Belilovsky, New insights on reducing abrupt representation change in
        online continual learning, ICLR 2022. Evaluated at equal distances it is the area under the curve of Koh, Kim, Ha &
        Choi, Online continual learning on class incremental blurry task configuration with anytime inference, ICLR 2022.

    Example:
        >>> trace = torch.tensor([[[0.5, 0.0], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])
        >>> average_anytime_accuracy(trace)  # (0.5 + 1 + 0.5 + 0.5) / 4
        tensor(0.6250)
    """
    counts = _evaluations(trace)
    if int(counts.sum()) == 0:
        raise ValueError("nothing was evaluated: every entry of the trace is NaN")
    experiences, evaluations, tests = trace.shape
    if of_all is None:
        of_all = experiences > tests
    if not of_all and experiences > tests:
        raise ValueError(
            f"{experiences} training experiences do not belong to the {tests} test experiences one by one: pass of_all=True"
        )
    seen = torch.ones(experiences, tests, dtype=torch.bool, device=trace.device)
    seen = seen if of_all else seen.tril()
    means = trace.nan_to_num().mul(seen[:, None]).sum(2) / seen.sum(1, keepdim=True)
    evaluated = torch.arange(evaluations, device=trace.device) < counts[:, None]
    return means[evaluated].mean()


def _evaluations(trace: Tensor) -> Tensor:
    """Number of evaluations within each training experience, (training experiences,)."""
    if trace.ndim != 3 or not trace.is_floating_point() or 0 in trace.shape:
        raise ValueError(
            "expected a floating-point trace (training experiences, evaluations, test experiences), got "
            f"{trace.dtype} of shape {tuple(trace.shape)}"
        )
    missing = trace.isnan()
    evaluated = ~missing.all(2)
    counts = evaluated.sum(1)
    in_order = evaluated == (torch.arange(trace.shape[1], device=trace.device) < counts[:, None])
    if bool((missing.any(2) & evaluated).any()) or not bool(in_order.all()):
        raise ValueError(
            "every evaluation must cover all test experiences, and the evaluations of an experience must come first, "
            "padded with NaN at the end; the trace has NaN (not measured) in between"
        )
    return counts


def _square_ends(trace: Tensor, name: str) -> Tensor:
    """Rows of the end matrix up to the last experience that was evaluated."""
    counts = _evaluations(trace)
    if trace.shape[0] != trace.shape[2]:
        raise ValueError(
            f"{name} compares each training experience with the test experience at the same position: expected as many "
            f"training as test experiences, got {trace.shape[0]} and {trace.shape[2]}"
        )
    rows = int((counts > 0).sum())
    if rows == 0:
        raise ValueError("nothing was evaluated: every entry of the trace is NaN")
    if bool((counts[:rows] == 0).any()):
        raise ValueError(f"{name} needs evaluations within every experience up to the last; at least one has none")
    return end_matrix(trace)[:rows]


__all__ = ["average_anytime_accuracy", "end_matrix", "minimum_accuracy_within", "stability_gap", "worst_case_accuracy"]

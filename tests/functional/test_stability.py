"""Measures within experiences: golden cases by hand, a plain-loop reference, invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_meta.functional import matrix
from lit_meta.functional.stability import end_matrix, minimum_accuracy_within, stability_gap, worst_case_accuracy

NAN = float("nan")
# Three experiences with 2, 3 and 1 evaluations, by hand.
TRACE = torch.tensor(
    [
        [[0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [NAN, NAN, NAN]],
        [[0.2, 0.6, 0.0], [0.1, 0.8, 0.0], [0.7, 0.9, 0.0]],
        [[0.6, 0.4, 1.0], [NAN, NAN, NAN], [NAN, NAN, NAN]],
    ]
)


def test_golden_values() -> None:
    torch.testing.assert_close(end_matrix(TRACE), torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.9, 0.0], [0.6, 0.4, 1.0]]))
    # Learning 1: experience 0 from 1.0 to 0.1 to 0.7, a dip of 0.6 below the lower end. Learning 2: no dip below the ends.
    assert stability_gap(TRACE).item() == pytest.approx(0.6 / 3)
    assert minimum_accuracy_within(TRACE).item() == pytest.approx((0.1 + 0.4) / 2)
    assert worst_case_accuracy(TRACE).item() == pytest.approx(1.0 / 3 + 2 / 3 * 0.25)


def reference(trace: np.ndarray) -> tuple[float, float]:
    experiences, evaluations, _ = trace.shape
    ends = [[a for a in trace[i] if not np.isnan(a[0])][-1] for i in range(experiences)]
    gaps = []
    for i in range(1, experiences):
        for j in range(i):
            dip = min(trace[i, n, j] for n in range(evaluations) if not np.isnan(trace[i, n, j]))
            gaps.append(max(0.0, min(ends[i - 1][j], ends[i][j]) - dip))
    minima = [np.nanmin(trace[j + 1 :, :, j]) for j in range(experiences - 1)]
    return float(np.mean(gaps)), float(np.mean(minima))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 10_000))
def test_against_plain_loops(experiences: int, evaluations: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    trace = torch.rand(experiences, evaluations, experiences, generator=generator, dtype=torch.float64)
    for i in range(experiences):
        trace[i, int(torch.randint(1, evaluations + 1, (), generator=generator)) :] = NAN
    gap, minimum = reference(trace.numpy())
    assert stability_gap(trace).item() == pytest.approx(gap, abs=1e-12)
    assert minimum_accuracy_within(trace).item() == pytest.approx(minimum, abs=1e-12)
    average = matrix.average_accuracy(end_matrix(trace))
    assert worst_case_accuracy(trace) <= average + 1e-12, "the worst case is a lower bound of the average"


def test_one_evaluation_an_experience_shows_no_gap() -> None:
    ends = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    assert stability_gap(ends[:, None]) == 0
    assert minimum_accuracy_within(ends[:, None]) == matrix.minimum_accuracy(ends)


def test_a_stream_under_way_and_a_single_experience() -> None:
    under_way = TRACE.clone()
    under_way[2] = NAN
    assert stability_gap(under_way).item() == pytest.approx(0.6)
    assert worst_case_accuracy(under_way).item() == pytest.approx(0.9 / 2 + 0.1 / 2)
    one = TRACE.clone()
    one[1:] = NAN
    assert stability_gap(one) == 0
    assert minimum_accuracy_within(one).isnan()
    assert worst_case_accuracy(one) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda t: t[0], "floating-point trace"),
        (lambda t: t[:2], "as many training as test experiences"),
        (lambda t: torch.full_like(t, NAN), "nothing was evaluated"),
        (lambda t: t.index_fill(0, torch.tensor([0]), NAN), "one has none"),
        (
            lambda t: t.index_put((torch.tensor([1]), torch.tensor([0])), torch.tensor(NAN)),
            "NaN .not measured. in between",
        ),
        (lambda t: t.index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2)), torch.tensor(NAN)), "in between"),
    ),
)
def test_what_was_not_measured_never_counts(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stability_gap(change(TRACE.clone()))  # type: ignore[operator]

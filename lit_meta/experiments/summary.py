"""Numbers over seeds as a mean and a spread, as data and as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lit_meta.experiments.config import LEARNERS


def summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and standard deviation (of the sample, n - 1) of one number over seeds; None if it is undefined.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        {'mean': 2.0, 'sd': 1.0, 'values': [1.0, 2.0, 3.0]}
    """
    known = [v for v in values if v is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "sd": sd, "values": known}


def percent(summary: Mapping[str, Any] | None) -> str:
    """A summary over seeds in per cent.

    Example:
        >>> percent({"mean": 0.1234, "sd": 0.01, "values": [0.1, 0.2]})
        '12.3 ± 1.0'
    """
    if summary is None:
        return "–"
    spread = "" if summary["sd"] is None else f" ± {100 * summary['sd']:.1f}"
    return f"{100 * summary['mean']:.1f}{spread}"


def accuracies(results: Mapping[str, Any]) -> list[str]:
    """Average accuracies in per cent of the rule, naive training and the joint bound; a dash for learners that were not run.

    Example:
        >>> accuracies({"rule": {"average_accuracy": {"mean": 0.9, "sd": None}}})
        ['90.0', '–', '–']
    """
    return [percent(results.get(learner, {}).get("average_accuracy")) for learner in LEARNERS]

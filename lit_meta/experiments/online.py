"""Online accuracy of an experiment's learners: its callback among theirs, and its summary over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L

from lit_meta.callbacks.online_accuracy import OnlineAccuracy
from lit_meta.data.benchmark import Benchmark
from lit_meta.experiments.summary import summary

__all__ = ["QUANTITIES", "OnlineAccuracy", "summarize_online", "with_own"]

QUANTITIES = ("accuracy", "dormant", "rank")

Callbacks = Callable[[Benchmark], Sequence[L.Callback]]


def with_own(own: Sequence[L.Callback], callbacks: Callbacks | None) -> Callbacks | None:
    """A function that builds the callbacks of a learner, with these before them."""
    if not own:
        return callbacks
    return lambda benchmark: [*own, *(() if callbacks is None else callbacks(benchmark))]


def summarize_online(records: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """The mean over the stream, over seeds, and the means over seeds of each experience.

    Args:
        records: one for each seed, with the lists named in `QUANTITIES`.
    """
    columns = {quantity: [list(record[quantity]) for record in records] for quantity in QUANTITIES}
    return {
        "online_accuracy": summary([statistics.fmean(values) for values in columns["accuracy"]]),
        "online": {q: [round(statistics.fmean(v), 6) for v in zip(*rows, strict=True)] for q, rows in columns.items()},
    }

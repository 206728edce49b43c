"""Independent calls side by side: in processes of this machine, or on a Dask cluster, both through joblib."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from lit_meta.utils.arguments import require_count
from lit_meta.utils.workers import begin_task, workers_renewed_quietly

T = TypeVar("T")

# What libraries say to their own developers, once in each process, is no news to a user.
_QUIET = "ignore::DeprecationWarning,ignore::FutureWarning,ignore:no QP solver found on your system:UserWarning"


def check_jobs(jobs: int, cluster: str | None) -> None:
    """Checks where calls are to run, before anything is written.

    Raises:
        ValueError: fewer than one job.
        RuntimeError: a cluster, and `dask.distributed` is not installed.

    Example:
        >>> check_jobs(0, None)
        Traceback (most recent call last):
        ...
        ValueError: jobs must be a whole number of at least 1, got 0
    """
    require_count("jobs", jobs)
    if cluster is not None:
        _distributed()


def side_by_side(calls: Sequence[Callable[[], T]], *, jobs: int, cluster: str | None = None) -> list[T]:
    """The results of calls that do not depend on each other, in their order.

    With one job and no cluster they run in this process, one after another. In several processes each has its share of this
    process's threads, so that they do not compete for the processor's cores. If one fails, its error is raised and the others
    are stopped.

    Args:
        calls: functions without arguments; they are sent to other processes, so whatever they refer to must be picklable.
        jobs: how many run at the same time.
        cluster: the address of a Dask scheduler, such as ``"tcp://node1:8786"``; None for this machine.

    Raises:
        ValueError, RuntimeError: as of `check_jobs`, and whatever a call raises.

    Example:
        >>> from functools import partial
        >>> side_by_side([partial(pow, 2, 3), partial(pow, 2, 4)], jobs=1)
        [8, 16]
    """
    check_jobs(jobs, cluster)
    if cluster is None and (jobs == 1 or len(calls) < 2):
        return [call() for call in calls]
    import joblib
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    with _backend(jobs, cluster, threads), workers_renewed_quietly():
        # One call a task: they take minutes, and joblib would put short ones together.
        parallel = joblib.Parallel(batch_size=1, pre_dispatch="all")
        results: list[T] = parallel(joblib.delayed(_within)(call, threads) for call in calls)
    return results


def _within(call: Callable[[], T], threads: int) -> T:
    begin_task(threads)
    return call()


@contextmanager
def _backend(jobs: int, cluster: str | None, threads: int) -> Iterator[None]:
    import joblib

    if cluster is not None:
        # The address of a scheduler, or a Client's scheduler that tests have started in this process.
        with _distributed().Client(cluster), joblib.parallel_config("dask", n_jobs=jobs):
            yield
        return
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = _QUIET if not before else f"{_QUIET},{before}"
    try:
        with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
            yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _distributed() -> Any:
    try:
        import dask.distributed
    except ImportError:
        raise RuntimeError(
            "a cluster needs dask.distributed, which is not installed: pip install 'lit-meta[cluster]'"
        ) from None
    return dask.distributed

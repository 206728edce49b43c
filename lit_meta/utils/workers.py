"""What processes of joblib need to run tasks of minutes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def begin_task(threads: int) -> None:
    """To be called first in every task of a worker.

    joblib ends a worker whose memory has grown by 300 MB and starts another, which imports PyTorch and reads the data anew:
    between every two tasks, since a task of minutes reads more than that once. A worker ends with its call all the same.

    Args:
        threads: of PyTorch. The order in which products are summed depends on it.
    """
    import torch
    from joblib.externals.loky import process_executor  # type: ignore[import-untyped]

    process_executor._USE_PSUTIL = False
    torch.set_num_threads(threads)


@contextmanager
def workers_renewed_quietly() -> Iterator[None]:
    """Lets joblib replace a worker that has been idle for long.

    It warns of that in a thread of its own; where warnings are errors that thread would die, and its caller wait for ever.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given", category=UserWarning)
        yield

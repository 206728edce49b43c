"""A readout learned in parallel: every shard of a stream by itself, and the sums added up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from lit_meta.core.layers import uncompiled
from lit_meta.rules._readout_memory import ReadoutMemory
from lit_meta.utils.workers import begin_task, workers_renewed_quietly

Batches = Iterable[tuple[Tensor, Tensor]]
Shard = Batches | Callable[[], Batches]
Readout = TypeVar("Readout", bound=ReadoutMemory)


def learn_shards(rule: Readout, network: nn.Module, shards: Sequence[Shard], *, jobs: int = 1) -> Readout:
    """Learns the shards of a stream in parallel, and merges what they have taught into a rule.

    Each shard is learned by a fresh rule, in one thread, and the rules are merged in the order of the shards: the result is the
    same to the last bit for any number of jobs, and that of one pass over all samples up to rounding. The jobs are joblib's:
    inside ``joblib.parallel_config(backend="dask")`` they run on a Dask cluster. At most one shard's sums for each job are in
    memory beside those of the rule.

    Args:
        rule: a `RecursiveReadout` or `StreamingLDA`; what it remembers already stays. With ``decay`` below 1, the order of
            samples counts, and shards have none: that is refused.
        network: the network of the head, whose features are final. It is copied to the jobs; the head is written at the end.
        shards: (inputs, targets) batches of each shard, or functions that return them, so that a job opens its own files.
        jobs: how many shards are learned at a time.

    Returns:
        The rule, with the head written.

    Raises:
        TypeError: another rule.
        ValueError: no shards, ``decay`` or ``after`` set, or what `RecursiveReadout.learn` refuses.

    Example:
        >>> from lit_meta.rules import RecursiveReadout
        >>> network, x = nn.Sequential(nn.Linear(4, 2)), torch.eye(4)
        >>> shards = [[(x[:2], torch.tensor([0, 0]))], [(x[2:], torch.tensor([1, 1]))]]
        >>> rule = learn_shards(RecursiveReadout(ridge=1e-3), network, shards)
        >>> network(x).argmax(1)
        tensor([0, 0, 1, 1])
    """
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    if not isinstance(rule, ReadoutMemory):
        raise TypeError(f"only sums add up: a RecursiveReadout or a StreamingLDA, got {type(rule).__name__}")
    if rule.decay < 1.0 or rule.after:
        raise ValueError("shards have no order: use a rule with decay=1 and after=0")
    if not shards:
        raise ValueError("there are no shards to learn")
    network = uncompiled(network)
    # Without hooks of a session, which neither travel nor matter here.
    plain = copy.deepcopy(network)
    total = _fresh(rule)
    total.state.load_state_dict(rule.state.state_dict())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # For jobs that are threads of this process; see `_learned`.
    try:
        with workers_renewed_quietly():
            learned = Parallel(n_jobs=jobs, return_as="generator")(
                delayed(_learned)(_fresh(rule), plain, shard) for shard in shards
            )
            for state in learned:
                part = _fresh(rule)
                part.state.load_state_dict(state)
                total.merge(part)
    finally:
        torch.set_num_threads(threads)
    rule.adopt(total)
    rule.write(network)
    return rule


def _fresh(rule: Readout) -> Readout:
    return cast(Readout, rule.clone())


def _learned(rule: ReadoutMemory, network: nn.Module, shard: Shard) -> dict[str, Tensor]:
    begin_task(threads=1)
    rule.learn(network, shard() if callable(shard) else shard)
    return rule.state.state_dict()

"""A readout learned in several processes, each on its part of every batch; run by `test_sums`."""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.rules import RecursiveReadout
from tests.rules.test_recursive_readout import network_of, samples


def learned(*, rank: int, processes: int) -> Tensor:
    """The head's weights."""
    (x, y), network = samples(240), network_of()
    session = Session(network, RecursiveReadout(ridge=1e-3, block=15))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    session.begin_experience()
    for batch, labels in zip(x.split(60), y.split(60), strict=True):
        size = -(-len(batch) // processes)
        mine = slice(rank * size, (rank + 1) * size)
        with session.step(batch[mine], labels[mine], optimizer):
            F.cross_entropy(network.train()(batch[mine]), labels[mine]).backward()
    session.end_experience()
    return network[2].weight.detach().clone()


def main(target: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, processes = int(os.environ["RANK"]), torch.distributed.get_world_size()
    weight = learned(rank=rank, processes=processes)
    everyone = [torch.empty_like(weight) for _ in range(processes)]
    torch.distributed.all_gather(everyone, weight)
    if not all(torch.equal(weight, other) for other in everyone):
        raise SystemExit("the processes ended with different weights")
    if rank == 0:
        torch.save(weight, target)
    # A process that leaves first may tear down what the others still wait for.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])

"""Trains every rule in several processes of one group; run by `test_processes` through torch.distributed.run."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lit_meta import Metaplasticity, MetaplasticModule, Session
from lit_meta.rules import EWC, Rule
from tests.rules import drivers
from tests.rules.test_processes import BATCH, learners

RAGGED = 11


def trainer(world: int, **options: object):
    strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)
    return drivers.trainer(max_epochs=1, devices=world, strategy=strategy, use_distributed_sampler=False, **options)


def loader(x, y, world: int, rank: int, batch: int = BATCH) -> DataLoader:
    # The sampler of Lightning shuffles unless told not to; in order, the parts make the batch of one process.
    sampler = DistributedSampler(range(len(x)), num_replicas=world, rank=rank, shuffle=False)
    return DataLoader(TensorDataset(x, y), batch_size=batch // world, sampler=sampler)


def learned(rule: Rule, network: nn.Module, data, world: int, rank: int) -> torch.Tensor | str:
    """All weights; or why there are none."""
    before = torch.cat([p.detach().flatten() for p in network.parameters()])
    try:
        for x, y in data:
            fitting = trainer(world, callbacks=[Metaplasticity(rule, network="body")])
            fitting.fit(drivers.UserModule(network), loader(x, y, world, rank))
    except ValueError as error:
        after = torch.cat([p.detach().flatten() for p in network.parameters()])
        return str(error) if torch.equal(before, after) else f"after training had begun: {error}"
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    everyone = [torch.empty_like(weights) for _ in range(world)]
    torch.distributed.all_gather(everyone, weights)
    alike = all(torch.equal(weights, other) for other in everyone)
    return weights if alike else "the processes ended with different weights"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    data = torch.load(folder / "data.pt", weights_only=False)
    start = torch.load(folder / "network.pt", weights_only=False)
    torch.distributed.init_process_group("gloo")
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    results: dict[str, object] = {
        name: learned(rule, copy.deepcopy(start), data, world, rank) for name, rule in learners().items()
    }
    # Accuracy where the last batch is ragged, and some processes repeat a sample.
    x, y = data[0][0][:RAGGED], data[0][1][:RAGGED]
    (measured,) = trainer(world).test(MetaplasticModule(start), loader(x, y, world, rank), verbose=False)
    results["accuracy"] = measured["test_accuracy"]
    results["fsdp"] = refusal_of_fsdp(copy.deepcopy(start))
    if rank == 0:
        torch.save(results, folder / f"weights-{world}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def refusal_of_fsdp(network: nn.Module) -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(network, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    try:
        Session(network, EWC()).begin_experience()
    except ValueError as error:
        return str(error)
    return "not refused"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

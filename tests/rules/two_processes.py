"""Trains every rule in two processes; run by `test_situations` through torch.distributed.run."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import Metaplasticity
from lit_meta.rules import RULES
from tests.rules import drivers
from tests.rules.test_contract import from_config


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    data = torch.load(folder / "data.pt", weights_only=False)
    start = torch.load(folder / "network.pt", weights_only=False)
    found: dict[str, torch.Tensor | str] = {}
    for name in RULES:
        rule, network = from_config(name), copy.deepcopy(start)
        try:
            for x, y in data:
                # The sampler of Lightning shuffles unless told not to; in order, two halves make the batch of one process.
                sampler = torch.utils.data.DistributedSampler(
                    range(len(x)), num_replicas=2, rank=int(os.environ["RANK"]), shuffle=False
                )
                loader = DataLoader(TensorDataset(x, y), batch_size=drivers.BATCH, sampler=sampler)
                strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)
                trainer = drivers.trainer(
                    callbacks=[Metaplasticity(rule, network="body")],
                    max_epochs=1,
                    devices=2,
                    strategy=strategy,
                    use_distributed_sampler=False,
                )
                trainer.fit(drivers.UserModule(network), loader)
            weights = torch.cat([p.detach().flatten() for p in network.parameters()])
            both = [torch.empty_like(weights) for _ in range(2)]
            torch.distributed.all_gather(both, weights)
            found[name] = weights if torch.equal(*both) else "the two processes ended with different weights"
        except (ValueError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    if torch.distributed.get_rank() == 0:
        torch.save(found, folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

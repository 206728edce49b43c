"""A training script for two processes; the first writes the weights that came of it. Not a test by itself."""

from __future__ import annotations

import os
import sys
import warnings

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lit_meta import NACA, Metaplasticity


class Classifier(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv1d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 7), nn.Sigmoid(), nn.Linear(7, 4)
        )

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.body(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


def main(processes: int, target: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    generator = torch.Generator().manual_seed(2)
    data = TensorDataset(torch.randn(32, 1, 8, generator=generator), torch.arange(32) % 4)
    module = Classifier()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",
        max_epochs=2,
        accumulate_grad_batches=2,
        gradient_clip_val=0.05,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Metaplasticity(NACA(), network="body")],
    )
    # Every second sample goes to the second process, so eight on one are four and four on two.
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    sampler = DistributedSampler(data, num_replicas=processes, rank=rank, shuffle=False)
    trainer.fit(module, DataLoader(data, batch_size=8 // processes, sampler=sampler))
    if trainer.is_global_zero:
        torch.save(torch.cat([p.detach().flatten() for p in module.parameters()]), target)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

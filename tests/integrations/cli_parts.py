"""A LightningModule and its data, named by class paths in the YAML files of `test_lightning_cli`."""

from __future__ import annotations

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Data(L.LightningDataModule):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(16, 4, generator=generator)
        return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), batch_size=4)


class Module(L.LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.lr = lr

    def forward(self, inputs):
        return self.layer(inputs)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

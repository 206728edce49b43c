"""The number of samples that training actually sees, under any limits, samplers and callbacks."""

from __future__ import annotations

from typing import Any

import lightning as L

from lit_meta.core.trees import tensors


class SampleCount(L.Callback):
    """Counts the samples of every training batch, over all processes.

    Attributes:
        samples: number of samples since the last call of `take`.
    """

    def __init__(self) -> None:
        self.samples = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        first = next(iter(tensors(batch)), None)
        if first is not None and first.dim():
            self.samples += len(first) * trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples = state_dict["samples"]

    def take(self) -> int:
        """The samples since the last call."""
        samples, self.samples = self.samples, 0
        return samples

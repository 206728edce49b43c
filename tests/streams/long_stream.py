"""A long stream of a tiny network: what memory and time per step do from its beginning to its end.

    python -m tests.streams.long_stream 10000 100    # experiences, steps in each

prints, as JSON, the growth of the resident memory and the time of the last tenth of the steps against the first.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lit_meta import MetaplasticModule, fit_stream
from lit_meta.data.lazy import LazyBenchmark, LazyStream
from lit_meta.data.view import TensorView
from lit_meta.networks import build_network

_BATCH = 4


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Watch(L.Callback):
    """The processor time within training batches and the memory, experience by experience."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: list[int] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.process_time()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(time.process_time() - self._started)
        self.memory.append(resident())


def measure(experiences: int, steps: int, rule: Any = None) -> dict[str, float]:
    """Runs a stream; the growth of memory is from the first tenth of the experiences on, when everything is warm."""
    x = torch.rand(1000, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(1000) % 4

    def view(position: int) -> TensorView:
        generator = torch.Generator().manual_seed(position)
        return TensorView(x, y, torch.randint(1000, (steps * _BATCH,), generator=generator))

    tests = LazyStream(1, lambda _: TensorView(x, y, torch.arange(100)))
    benchmark = LazyBenchmark(LazyStream(experiences, view), tests, name="long", form="class", classes=4)
    module = MetaplasticModule(build_network("mlp", inputs=8, hidden=[8], classes=4), rule=rule)
    watch = Watch()
    started = time.process_time()
    fit_stream(module, benchmark, batch_size=_BATCH, accelerator="cpu", callbacks=[watch])
    gc.collect()
    tenth = max(1, experiences // 10)
    first, last = (sorted(part)[len(part) // 2] for part in (watch.seconds[tenth : 2 * tenth], watch.seconds[-tenth:]))
    return {
        "experiences": experiences,
        "steps": experiences * steps,
        "seconds": round(time.process_time() - started, 1),
        "memory_mib": round(watch.memory[tenth] / 2**20, 1),
        "memory_growth": round(watch.memory[-1] / watch.memory[tenth] - 1, 4),
        "last_tenth_of_steps": round(last / first, 4),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))

"""Fresh networks, one for each experience: the reference for measures of plasticity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_meta.data.benchmark import Benchmark, BenchmarkView, benchmark_name
from lit_meta.streams.fit import fit_stream


def fresh_accuracies(make_module: Callable[[], L.LightningModule], benchmark: Benchmark, **options: Any) -> Tensor:
    """Accuracy on each experience of a network that was trained on nothing else.

    Args:
        make_module: returns a new module with initial weights and no memory, as before the stream.
        benchmark: the stream's benchmark.
        **options: of `fit_stream`, as for the stream itself. ``run_dir`` and ``resume`` do not apply.

    Returns:
        ``(experiences,)``: the second argument of `lit_meta.functional.plasticity.plasticity`.

    Raises:
        ValueError: training and test streams of different lengths, or an option that does not apply.

    Example:
        >>> from lit_meta import MetaplasticModule, scenario
        >>> from lit_meta.networks import build_network
        >>> make = lambda: MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> fresh_accuracies(make, scenario("split-digits", experiences=2), accelerator="cpu").shape
        torch.Size([2])
    """
    if unused := {"run_dir", "resume"} & set(options):
        raise ValueError(f"{' and '.join(sorted(unused))} do not apply to fresh networks: nothing is saved")
    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    if len(train) != len(test):
        raise ValueError(
            f"a fresh network is tested on the experience it was trained on: expected as many test experiences as "
            f"training experiences, got {len(test)} and {len(train)}"
        )
    accuracies = []
    for experience, tested in zip(train, test, strict=True):
        alone = BenchmarkView(
            benchmark_name(benchmark),
            [experience],
            [tested],
            form=getattr(benchmark, "form", ""),
            classes=getattr(benchmark, "classes", 0),
        )
        result = fit_stream(make_module(), alone, **options)
        accuracies.append(result.accuracy_matrix[0, 0])
    return torch.stack(accuracies)

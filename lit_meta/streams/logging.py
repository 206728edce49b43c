"""Accuracy along the stream for the loggers of a Trainer: TensorBoard, CSV, W&B, MLflow or any other."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def stream_metrics(accuracies: Tensor, learned: int) -> dict[str, float]:
    """What loggers are told after an experience, by name.

    Args:
        accuracies: on each test experience, ``(test experiences,)``.
        learned: training experiences learned so far.

    Example:
        >>> import torch
        >>> stream_metrics(torch.tensor([0.5, 1.0, 0.0]), 2)["stream/accuracy_seen"]
        0.75
    """
    values = accuracies.tolist()
    seen = values[:learned]
    return {
        "stream/experience": float(learned),
        "stream/accuracy": sum(values) / len(values),
        "stream/accuracy_seen": sum(seen) / len(seen) if seen else 0.0,
        **{f"stream/accuracy_experience_{i}": value for i, value in enumerate(values, start=1)},
    }


def log_accuracies(trainer: Any, accuracies: Tensor, learned: int) -> None:
    """Tells each logger of a Trainer the accuracies after an experience, at the optimizer step that training has reached."""
    for logger in trainer.loggers:
        logger.log_metrics(stream_metrics(accuracies, learned), step=trainer.global_step)
        logger.save()

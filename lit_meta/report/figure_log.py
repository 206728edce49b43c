"""Logs the report's figures to a Lightning logger while a stream is learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure
from torch import Tensor, nn

from lit_meta.callbacks.weight_change import WeightChange
from lit_meta.data.module import experience_index
from lit_meta.evaluation.accuracy import PROTOCOLS, Protocol, accuracy_of
from lit_meta.networks import SpikingNetwork
from lit_meta.utils.validation import require_one_of


class FigureLog(L.Callback):
    """After every experience, logs the accuracy matrix, the accuracy along the stream, the synapses changed, and spikes.

    Works with every Lightning logger whose ``experiment`` has ``add_figure(tag, figure, global_step=...)``, such as
    `TensorBoardLogger`. The step is the number of experiences learned. Logging does not affect learning.

    Args:
        test_stream: experiences to test on.
        protocol: how test batches are made; see `lit_meta.evaluation.accuracy.accuracy_of`.
        threshold: see `lit_meta.callbacks.WeightChange`.

    Raises:
        ValueError: an argument out of range; at the start of training, no logger that accepts figures.

    Example:
        >>> from lit_meta import scenario
        >>> log = FigureLog(scenario("split-digits", experiences=2).test_stream)
        >>> # fit_stream(module, benchmark, callbacks=[log], logger=TensorBoardLogger("runs/tensorboard"))
    """

    def __init__(self, test_stream: Iterable[Any], *, protocol: Protocol = "standard", threshold: float = 0.01) -> None:
        from lit_meta.data import experience_tensors

        require_one_of("protocol", protocol, PROTOCOLS)
        self._tests = [experience_tensors(experience) for experience in test_stream]
        if not self._tests:
            raise ValueError("expected at least one experience to test on, got an empty stream")
        self.protocol = protocol
        self.change = WeightChange(threshold=threshold)
        self.rows: dict[int, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            figure_loggers(trainer.loggers)

    def check_stream(self, *, tells_tasks: bool) -> None:
        """Checks that samples can be tested by themselves.

        Raises:
            ValueError: the stream has to tell the task of every sample.
        """
        if tells_tasks:
            raise ValueError("FigureLog cannot tell the task of a test sample, and this stream has to")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.change.on_fit_start(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.change.on_fit_end(trainer, pl_module)
        index = experience_index(trainer, len(self.rows))
        self.rows[index] = accuracy_of(pl_module, self._tests, protocol=self.protocol, device=pl_module.device)
        if trainer.is_global_zero:
            log_figures(trainer.loggers, self.figures(pl_module), step=index + 1)

    def figures(self, pl_module: L.LightningModule) -> dict[str, Figure]:
        """The figures logged after the experiences learned so far, by tag."""
        from lit_meta.evaluation.activations import spike_raster
        from lit_meta.report.runs import Estimate
        from lit_meta.report.spike_figures import spikes_raster
        from lit_meta.report.stream_figures import accuracy_along_stream, accuracy_matrices
        from lit_meta.report.style import learner_series, run_series
        from lit_meta.report.weight_figures import synapses_changed

        matrix = torch.stack([self.rows[index] for index in sorted(self.rows)])
        figures = {"accuracy_matrix": accuracy_matrices({"accuracy matrix": matrix})}
        if sorted(self.rows) == list(range(len(matrix))) and len(matrix) <= matrix.shape[1]:
            seen = torch.stack([row[: i + 1].mean() for i, row in enumerate(matrix)])
            line = (Estimate.of(seen[None]), learner_series("rule", ["rule"]))
            figures["accuracy_along_stream"] = accuracy_along_stream({"this run": line}, {})
        layers = {
            name: {
                "this run": (
                    Estimate.of(torch.tensor([[r[name]["changed"] for r in self.change.records]])),
                    run_series(0),
                )
            }
            for name in self.change.records[0]
        }
        figures["synapses_changed"] = synapses_changed(layers)
        network = _spiking(pl_module)
        if network is not None:
            sample = self._tests[min(len(matrix), len(self._tests)) - 1][0][0].to(pl_module.device)
            figures["spikes"] = spikes_raster({"a sample of the last experience": spike_raster(network, sample)})
        return figures


def log_figures(loggers: Iterable[Logger], figures: Mapping[str, Figure], *, step: int) -> None:
    """Passes figures to every logger that accepts them.

    Args:
        loggers: Lightning loggers.
        figures: by tag.
        step: the step they belong to.

    Raises:
        ValueError: no logger accepts figures.
    """
    from lit_meta.report.style import styled

    accepting: list[Any] = [*figure_loggers(loggers)]
    for tag, figure in figures.items():
        # The report's figures are transparent, to suit any page; a logger's viewer may have any background.
        figure.set_facecolor("white")
        with styled():
            for logger in accepting:
                logger.experiment.add_figure(tag, figure, global_step=step)


def log_run(run_dir: Any, logger: Logger) -> list[str]:
    """Logs all figures of a finished run's report.

    Args:
        run_dir: the run's folder.
        logger: a Lightning logger that accepts figures.

    Returns:
        The tags.

    Raises:
        ValueError: the logger accepts no figures, or the folder cannot be read.
        FileNotFoundError: the folder does not contain a finished run.
    """
    from lit_meta.report import read_run, run_panels

    figure_loggers([logger])
    run = read_run(run_dir)
    figures = {panel.name: panel.figure for panel in run_panels(run)[0]}
    log_figures([logger], figures, step=run.length)
    return list(figures)


def figure_loggers(loggers: Iterable[Logger]) -> list[Logger]:
    """The loggers that accept figures.

    Raises:
        ValueError: there are none.
    """
    given = list(loggers)
    accepting = [logger for logger in given if hasattr(getattr(logger, "experiment", None), "add_figure")]
    if not accepting:
        names = ", ".join(type(logger).__name__ for logger in given) or "none"
        raise ValueError(
            f"no logger accepts figures (its experiment needs add_figure); got: {names}. Use TensorBoardLogger, for instance"
        )
    return accepting


def _spiking(module: nn.Module) -> SpikingNetwork | None:
    return next((part for part in module.modules() if isinstance(part, SpikingNetwork)), None)

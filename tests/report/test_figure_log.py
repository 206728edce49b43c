"""The report's figures in TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_meta import MetaplasticModule, fit_stream, scenario
from lit_meta.networks import build_network
from lit_meta.report.figure_log import FigureLog, log_run


def logged(folder: str) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"images": 0})
    events.Reload()
    steps = {}
    for tag in events.Tags()["images"]:
        images = events.Images(tag)
        assert all(image.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n" for image in images)
        assert all(image.width > 300 and image.height > 200 for image in images)
        steps[tag] = [image.step for image in images]
    return steps


def module() -> MetaplasticModule:
    return MetaplasticModule(build_network("lif-mlp", inputs=64, hidden=[6], classes=10, steps=3, seed=0))


def test_figures_are_logged_after_every_experience(tmp_path: Path) -> None:
    benchmark = scenario("split-digits", experiences=2)
    logger = TensorBoardLogger(tmp_path, name="")
    watched = module()
    log = FigureLog(benchmark.test_stream)
    result = fit_stream(watched, benchmark, callbacks=[log], logger=logger, accelerator="cpu")
    logger.finalize("success")
    assert logged(logger.log_dir) == {
        tag: [1, 2] for tag in ("accuracy_matrix", "accuracy_along_stream", "synapses_changed", "spikes")
    }
    torch.testing.assert_close(torch.stack([log.rows[0], log.rows[1]]), result.accuracy_matrix)
    alone = module()
    fit_stream(alone, benchmark, accelerator="cpu")
    for plain, logged_too in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(plain, logged_too)


def test_a_logger_that_accepts_no_figures_is_refused(tmp_path: Path) -> None:
    benchmark = scenario("split-digits", experiences=2)
    for logger, name in ((CSVLogger(tmp_path), "CSVLogger"), (False, "none")):
        with pytest.raises(ValueError, match=rf"no logger accepts figures .*got: {name}"):
            fit_stream(
                module(), benchmark, callbacks=[FigureLog(benchmark.test_stream)], logger=logger, accelerator="cpu"
            )
    with pytest.raises(ValueError, match="empty stream"):
        FigureLog([])


def test_a_finished_run_is_logged_whole(spiking_run: Path, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="")
    tags = log_run(spiking_run, logger)
    logger.finalize("success")
    assert {"accuracy_matrix", "forgetting", "cost_accuracy", "weight_change", "spikes"} <= set(tags)
    assert logged(logger.log_dir) == {tag: [5] for tag in tags}

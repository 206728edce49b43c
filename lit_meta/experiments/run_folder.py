"""The folder of a run: whether it is free, what it holds already, and its config."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_meta.experiments.config import Experiment
from lit_meta.streams.checkpoints import learned_experiences
from lit_meta.utils.io import check_folder, load_tensors, load_yaml, save_yaml

if TYPE_CHECKING:
    from torch import nn

SNAPSHOTS_FOLDER = "snapshots"  # The first seed's network after each experience, where it is small.


def check_config(experiment: Experiment, run_dir: Path, *, resume: bool, overwrite: bool = False) -> None:
    """Checks that a folder is free, or that a resumed run has the same config for every learner that has begun.

    What has not run yet may be corrected: a control that failed, the epochs of the joint bound, further controls.

    Raises:
        FileExistsError: the folder holds a run, and neither ``resume`` nor ``overwrite`` is set.
        ValueError: the folder holds a run with another config or without one, or cannot be written to.
    """
    path = run_dir / "config.yaml"
    check_folder(run_dir)
    if resume and overwrite:
        raise ValueError("--resume goes on with a run and --overwrite removes it: give one of them")
    if overwrite:
        return
    if path.is_file() and not resume:
        if _has_begun(
            run_dir
        ):  # A run that failed before it learned anything may be restarted, also with a corrected config.
            raise FileExistsError(
                f"{run_dir} already holds a run: choose another run_dir, continue it with --resume, or start afresh with "
                "--overwrite"
            )
    elif path.is_file():
        # Compares the experiments, not the texts: in an older file, a missing argument means its default.
        saved = Experiment.from_dict(load_yaml(path))
        for learner in saved.learners:
            if _has_begun(run_dir, learner):
                _check_same(path, learner, saved, experiment)
    elif _has_begun(run_dir):
        raise ValueError(
            f"{run_dir} holds checkpoints and no config.yaml that says of which experiment: use another run_dir, or start "
            "afresh with --overwrite"
        )


def load_final_weights(network: nn.Module, run_dir: Path) -> nn.Module:
    """Gives a network the weights that the main learner ended with, of the first seed; returns it.

    Raises:
        FileNotFoundError: they are not there.
        ValueError: the file is damaged, or holds those of another network.
    """
    path = run_dir / "model.safetensors"
    try:
        network.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())
        raise ValueError(f"{path} holds the weights of another network than config.yaml describes: {reason}") from None
    return network


def _has_begun(run_dir: Path, learner: str = "*") -> bool:
    """Whether a learner, or any of them, has learned something in a run folder."""
    return any(any(run_dir.glob(f"{learner}/seed-*/{what}")) for what in ("checkpoints/*", "metrics.json"))


def _check_same(path: Path, learner: str, saved: Experiment, given: Experiment) -> None:
    """Checks that a learner is the same in two experiments."""
    before = saved.for_learner(learner).to_dict()
    now = given.for_learner(learner).to_dict() if learner in given.learners else {}
    different = [key for key in before if now.get(key) != before[key]]
    if different:
        raise ValueError(
            f"{path} is of another experiment: its learner {learner!r} has begun with another {', '.join(different)}, and "
            "only what has not begun may be changed; use another run_dir"
        )


def write_config(experiment: Experiment, run_dir: Path, *, resume: bool, overwrite: bool = False) -> None:
    """Writes the resolved config, or checks that a resumed run has the same one.

    Raises:
        FileExistsError, ValueError: as of `check_config`.
    """
    check_config(experiment, run_dir, resume=resume, overwrite=overwrite)
    if overwrite:
        _clear(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "config.yaml"
    # What is there already is not rewritten: a full disk would leave nothing of it.
    if not path.is_file() or load_yaml(path) != experiment.to_dict():
        save_yaml(path, experiment.to_dict())


def _clear(run_dir: Path) -> None:
    """Removes a run, and nothing else that may be in its folder."""
    for name in ("config.yaml", "metrics.json", "accuracy_matrix.csv", "model.safetensors", "rule.safetensors"):
        (run_dir / name).unlink(missing_ok=True)
    for folder in (*run_dir.glob("*/seed-*"), run_dir / SNAPSHOTS_FOLDER, run_dir / "figures"):
        if folder.is_dir():
            shutil.rmtree(folder)


def unfinished(experiment: Experiment, run_dir: Path, learners: Sequence[str] | None) -> list[str]:
    """The learners that have a seed without a result."""
    return [
        learner
        for learner in learners or experiment.learners
        if not all((run_dir / learner / f"seed-{seed}" / "metrics.json").is_file() for seed in experiment.seeds)
    ]


def learned_before(experiment: Experiment, run_dir: Path, learners: Sequence[str]) -> int:
    """The experiences of these learners that a run in this folder has learned already, over all seeds."""
    folders = [run_dir / learner / f"seed-{seed}" for learner in learners for seed in experiment.seeds]
    return sum(learned_experiences(folder) for folder in folders)

"""Which experience of its stream a Trainer is fitting."""

from __future__ import annotations

import lightning as L


def experience_index(trainer: L.Trainer, fits: int) -> int:
    """The position of the experience in its stream where the data module knows it, else the number of fits before."""
    experience = getattr(getattr(trainer, "datamodule", None), "train_experience", None)
    index = getattr(experience, "current_experience", None)
    return fits if index is None else int(index)

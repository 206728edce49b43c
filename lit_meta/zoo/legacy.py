"""Entries of format 1: a ``card.yaml`` in place of ``config.json``, without preprocessing and golden outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_meta.experiments.config import Experiment
from lit_meta.utils.arguments import require_keys
from lit_meta.utils.io import load_yaml
from lit_meta.zoo.schema import LEARNER

_KEYS = ("name", "command", "protocol", "seed", "experiment", "results", "accuracy_matrix", "sha256", "versions")


def read_legacy_card(path: Path) -> dict[str, Any]:
    """The card of an entry of format 1, in the form of the present one; what it does not know is None.

    Raises:
        ValueError: it is damaged.
    """
    card = load_yaml(path)
    where = f"the card of {path.parent.name!r}"
    absent = [key for key in _KEYS if key not in card]
    if absent:
        raise ValueError(f"{where} lacks {', '.join(absent)}: fetch the entry again")
    try:
        require_keys("it", card, _KEYS)
        part = Experiment.from_dict(card["experiment"]).for_learner("rule")
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{where} cannot be used: {' '.join(str(error).split())}") from None
    return present_form(card, part)


def present_form(card: Mapping[str, Any], part: Experiment) -> dict[str, Any]:
    """The keys of the present format around those of format 1."""
    name = part.network["name"] if isinstance(part.network, dict) and "name" in part.network else ""
    return {
        "format": 1,
        "library_name": "lit-meta",
        "name": card["name"],
        **{key: getattr(part, key) for key in LEARNER},
        "seed": card["seed"],
        **dict.fromkeys(("input_shape", "class_names", "preprocessing", "parameters", "continuation")),
        "spiking": "lif" in str(name) or "spiking" in str(name),
        "note": card["experiment"].get("note", ""),
        **{key: card[key] for key in ("experiment", "protocol", "command", "results", "accuracy_matrix")},
        "provenance": {},
        **{key: card[key] for key in ("versions", "sha256")},
    }

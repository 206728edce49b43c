"""What an estimator's files hold, checked before anything is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_meta.integrations._estimator_checks import check_labels
from lit_meta.utils.arguments import require_count
from lit_meta.utils.raw import raw_bytes

_SUMS = ("second_moment", "class_sums", "class_counts", "shift")


def digest_of(backbone: nn.Module | None) -> str:
    """A hash of the weights of a backbone; empty without one."""
    if backbone is None:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def saved_classes(labels: Any, dtype: Any) -> np.ndarray:
    """The labels of a file, in order, as they were saved.

    Raises:
        ValueError: they are not of that type, repeat, or are out of order.
    """
    if not isinstance(labels, list) or not all(isinstance(label, (str, int, float)) for label in labels):
        raise ValueError("classes must be a list of text or of numbers")
    check_labels([labels])
    of_type = np.dtype(dtype)
    if of_type.kind not in "biufUO":
        raise ValueError(f"the labels' dtype must be of text or numbers, got {dtype!r}")
    classes = np.array(labels, dtype=of_type)
    if classes.tolist() != labels:
        raise ValueError(f"its classes are not labels of dtype {dtype!r}")
    for label, following in pairwise(labels):
        if not label < following:
            raise ValueError(f"its classes repeat or are out of order: {label!r} stands before {following!r}")
    return classes


def saved_columns(content: Mapping[str, Any], features: int) -> dict[str, Any]:
    """The attributes that scikit-learn checks the columns of X by.

    Args:
        content: of the config.
        features: that the sums are of.

    Raises:
        ValueError: a number or names that do not fit.
    """
    number, names = content["features_in"], content.get("feature_names")
    if not isinstance(content["backbone"], str):
        raise ValueError("backbone must be a hash or empty")
    if number is None and names is None and content["backbone"]:
        return {}
    require_count("features_in", number)
    if not content["backbone"] and number != features:
        raise ValueError(f"features_in is {number}, and its sums are of {features} features")
    if names is None:
        return {"n_features_in_": number}
    if not isinstance(names, list) or len(names) != number or not all(isinstance(name, str) for name in names):
        raise ValueError(f"feature_names must be {number} names")
    return {"n_features_in_": number, "feature_names_in_": np.array(names, dtype=object)}


def saved_sums(sums: dict[str, Tensor], classes: int) -> dict[str, Tensor]:
    """The sums of a file.

    Raises:
        ValueError: a tensor is missing, of another shape, not finite, or counts are no numbers of samples.
    """
    if set(sums) != set(_SUMS):
        raise ValueError(f"expected the tensors {', '.join(_SUMS)}, got {', '.join(sorted(sums)) or 'none'}")
    width = sums["shift"].shape[0] if sums["shift"].dim() == 1 else -1
    shapes = {
        "second_moment": (width, width),
        "class_sums": (classes, width),
        "class_counts": (classes,),
        "shift": (width,),
    }
    for name, shape in shapes.items():
        tensor = sums[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float64 or not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite float64 numbers of the shape {shape}, got {tuple(tensor.shape)}")
    counts = sums["class_counts"]
    if bool((counts < 0).any()) or not torch.equal(counts, counts.round()) or not counts.any():
        raise ValueError("class_counts must be numbers of samples, and not all 0")
    return sums

"""Nested values as JSON and a flat mapping of tensors: the state of a run on disk, without pickle."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (type(None), bool, int, float, str)
_TAG = "$"


def encode(value: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """A value as JSON can hold it; its tensors are put into a mapping, by their path.

    Args:
        value: numbers, text, None, tensors, arrays, paths, and lists, tuples, sets and mappings of these.
        tensors: receives the tensors.
        path: of the value, for keys and messages.

    Raises:
        TypeError: something else is inside; the message says where.

    Example:
        >>> tensors = {}
        >>> encode({"betas": (0.9, 0.99), "mean": torch.zeros(2)}, tensors)
        {'betas': {'$tuple': [0.9, 0.99]}, 'mean': {'$tensor': '/mean'}}
        >>> decode(encode({1: {"x"}}, tensors), tensors)
        {1: {'x'}}
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"$tensor": path}
    if kind is np.ndarray:
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {"$array": path}
    if kind in (np.float64, np.int64, np.bool_):
        return value.item()
    if kind is list:
        return [encode(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]
    if kind in (tuple, set, frozenset, torch.Size):
        name = "tuple" if kind is torch.Size else kind.__name__
        return {f"${name}": [encode(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]}
    if kind is dict and all(type(key) is str and not key.startswith(_TAG) for key in value):
        return {key: encode(item, tensors, f"{path}/{key}") for key, item in value.items()}
    if kind in (dict, OrderedDict, Counter):
        items = [
            [encode(key, tensors, f"{path}/key"), encode(item, tensors, f"{path}/{key}")] for key, item in value.items()
        ]
        encoded: dict[str, Any] = {f"${kind.__name__}": items}
        metadata = getattr(value, "_metadata", None)  # Of a module's state: the versions of its parts.
        return encoded if metadata is None else {**encoded, "metadata": encode(dict(metadata), tensors, f"{path}/$")}
    if isinstance(value, Path):
        return {"$path": str(value)}
    if kind is timedelta:
        return {"$seconds": value.total_seconds()}
    if kind is torch.device:
        return {"$device": str(value)}
    raise TypeError(f"{path or 'the value'} is a {kind.__name__}, and only tensors and plain values can be saved")


def decode(encoded: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `encode` was given.

    Raises:
        ValueError: it is nothing that `encode` has made.
    """
    if isinstance(encoded, list):
        return [decode(item, tensors) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = next(iter(encoded), "")
    if not tag.startswith(_TAG):
        return {key: decode(item, tensors) for key, item in encoded.items()}
    content = encoded[tag]
    try:
        if tag in ("$tensor", "$array"):
            return tensors[content] if tag == "$tensor" else tensors[content].numpy()
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](decode(content, tensors))
        if tag in _MAPPINGS:
            mapping = _MAPPINGS[tag]((decode(key, tensors), decode(item, tensors)) for key, item in content)
            if "metadata" in encoded:
                mapping._metadata = OrderedDict(decode(encoded["metadata"], tensors))
            return mapping
        return _SINGLE[tag](content)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{tag} {content!r} stands for no value that is known") from None


_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "$dict": dict,
    "$OrderedDict": OrderedDict,
    "$Counter": lambda items: Counter(dict(items)),
}
_SINGLE: dict[str, Callable[[Any], Any]] = {
    "$path": Path,
    "$seconds": lambda seconds: timedelta(seconds=seconds),
    "$device": torch.device,
}

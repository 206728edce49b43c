"""Weights that an entry refers to and does not store: they are made again when its network is built.

A frozen random layer comes from the seed; a pretrained backbone from a file that a registry knows by package, version and
sha256 (`lit_meta.networks.backbones.weights.PACKAGES`) or that lies in the hub's cache. Nothing is fetched. The card has a
digest of all of them, so that an entry whose layers come out differently is refused, and not used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_meta.utils.arguments import require_keys

if TYPE_CHECKING:
    from torch import Tensor

KEY = "by_reference"
KEYS = ("tensors", "count", "bytes", "sha256")
LEAST_BYTES = 64 << 10  # Below which nothing is gained.
MOST_BYTES = 256 << 20
MOST_TENSORS = 4000
_DIGEST = re.compile("[0-9a-f]{64}")


def referred(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What a card says of the weights that training has left as building the network makes them.

    Args:
        weights: of the trained network, by name.
        fresh: of the same network, built again with its seed.

    Returns:
        None where they are too few to matter; else ``tensors`` (names, or the beginnings of names that end with a dot),
        ``count`` and ``bytes`` of them, and a ``sha256`` over all.

    Example:
        >>> import torch
        >>> fresh = {"hidden.weight": torch.rand(200, 200), "head.weight": torch.zeros(2, 200)}
        >>> trained = {**fresh, "head.weight": torch.ones(2, 200)}
        >>> referred(trained, fresh)["tensors"], referred(fresh, trained)["bytes"]
        (['hidden.'], 160000)
    """
    same = [name for name, tensor in weights.items() if name in fresh and _same(tensor, fresh[name])]
    if sum(weights[name].numel() * weights[name].element_size() for name in same) < LEAST_BYTES:
        return None
    changed = {name.partition(".")[0] for name in weights.keys() - set(same)}
    shortened = list(
        dict.fromkeys(
            f"{top}." if dot and top not in changed else name for name in same for top, dot, _ in [name.partition(".")]
        )
    )
    return {"tensors": shortened, **described({name: weights[name] for name in same})}


def described(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Number, size and digest of tensors by name, whatever their order."""
    from lit_meta.utils.raw import raw_bytes

    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(raw_bytes(tensors[name]))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {"count": len(tensors), "bytes": size, "sha256": digest.hexdigest()}


def names_of(reference: Mapping[str, Any] | None, weights: Collection[str]) -> set[str]:
    """The names among those of weights that a card's reference covers.

    Example:
        >>> sorted(names_of({"tensors": ["hidden.", "scale"]}, ["hidden.weight", "hidden2.weight", "scale", "scale2"]))
        ['hidden.weight', 'scale']
    """
    given: Sequence[str] = () if reference is None else reference["tensors"]
    prefixes = tuple(text for text in given if text.endswith("."))
    whole = {text for text in given if not text.endswith(".")}
    return {name for name in weights if name in whole or (prefixes and name.startswith(prefixes))}


def check_stated(given: object) -> None:
    """Checks what a card says, before anything is built.

    Raises:
        TypeError, ValueError: it says something else.
    """
    reference = require_keys(KEY, given, KEYS, needed=KEYS)
    names = reference["tensors"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip(".") for n in names):
        raise ValueError(f"{KEY}: tensors must be a list of names, got {names!r}")
    for key, most in (("count", MOST_TENSORS), ("bytes", MOST_BYTES)):
        number = reference[key]
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= most:
            raise ValueError(f"{KEY}: {key} must be a number from 1 to {most}, got {number!r}")
    if not isinstance(reference["sha256"], str) or not _DIGEST.fullmatch(reference["sha256"]):
        raise ValueError(f"{KEY}: sha256 must be a digest of 64 hexadecimal digits, got {reference['sha256']!r}")


def check_reference(reference: Mapping[str, Any] | None, state: Mapping[str, Tensor], name: str) -> set[str]:
    """Checks that a network that was just built has the weights that its card refers to.

    Args:
        reference: of the card.
        state: of the network.
        name: of the entry, for the message.

    Returns:
        The names of these weights.

    Raises:
        ValueError: it has others.
    """
    covered = names_of(reference, state)
    if reference is None:
        return covered
    found = described({key: state[key] for key in covered})
    for key in ("count", "bytes"):
        if found[key] != reference[key]:
            raise ValueError(
                f"{name} refers to {reference[key]:,} {'tensors' if key == 'count' else key} of weights that are made again, "
                f"and the network of its card has {found[key]:,}: fetch the entry again"
            )
    if found["sha256"] != reference["sha256"]:
        raise ValueError(
            f"{name} refers to weights that are made again from their seed or from a file named on its card, and come out "
            "differently here (sha256 differs): use the version of PyTorch on its card, or make the entry again"
        )
    return covered


def _same(one: Tensor, other: Tensor) -> bool:
    import torch

    return one.dtype == other.dtype and torch.equal(one, other)

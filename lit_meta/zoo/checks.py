"""Checks of an entry's tensors: read whole, those of the network and of the rules on the card, and finite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import decode_key
from lit_meta.core.rule import Rule
from lit_meta.utils.memory_limit import MemoryLimit
from lit_meta.utils.validation import all_finite
from lit_meta.zoo.layout import Files

_AGAIN = "fetch the entry again"
_ROOM = 64 << 20  # Bytes that a network may take beside what is in its files: buffers, results on the way.
_TENSORS = 2000  # Operations that building a network may take beside those for its stored tensors.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that was read and whose digest fits, with its header taken apart.

    Attributes:
        path: of the file.
        content: its bytes.
        header: (dtype, shape) of every tensor, as the file states them.
    """

    path: Path
    content: bytes
    header: Mapping[str, tuple[str, tuple[int, ...]]]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors themselves.

        Raises:
            ValueError: the file is not whole, or a value is not finite.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(self.content)
        # A dtype that safetensors knows and torch does not is a KeyError of its.
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.path} is not a whole safetensors file: {' '.join(str(error).split())}") from None
        for key, tensor in tensors.items():
            if not all_finite(tensor):
                raise ValueError(f"{self.path}: {key!r} holds NaN or infinite values: do not use this entry")
        return tensors


def read_tensors(files: Files, card: Mapping[str, Any], file: str) -> TensorFile:
    """Reads a file once, and checks that it is the one that the card describes.

    Raises:
        FileNotFoundError: it is absent.
        ValueError: its digest is another, or it has no header of a safetensors file.
    """
    path = files.path(file)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card["sha256"][file]:
        raise ValueError(f"{path} is not the file that the card describes (sha256 differs): {_AGAIN}")
    length = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or not 2 <= length <= len(content) - 8:
            raise ValueError("its header is longer than the file")
        stated = json.loads(content[8 : 8 + length])
        header = {
            name: (str(facts["dtype"]), tuple(int(size) for size in facts["shape"]))
            for name, facts in stated.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {' '.join(str(error).split())}") from None
    for name in header:
        if not name.isprintable():
            raise ValueError(f"{path} names a tensor with control characters: do not use this entry")
    return TensorFile(path, content, header)


def building(name: str, weights: TensorFile, reference: Mapping[str, Any] | None = None) -> MemoryLimit:
    """A context for building the network of a card: one larger than its weights is refused before it takes the memory."""
    stored = len(weights.content) + (reference["bytes"] if reference else 0)
    return MemoryLimit(
        8 * stored + _ROOM,
        f"the network on the card of {name!r} is far larger than its weights of {stored:,} bytes: {_AGAIN}",
        most_operations=_TENSORS + 20 * (len(weights.header) + (reference["count"] if reference else 0)),
    )


def check_weights(weights: TensorFile, network: nn.Module, referred: Collection[str] = ()) -> None:
    """Checks that weights are those of a network, by the header of their file: names, shapes, types.

    Args:
        weights: the file.
        network: as the card describes it.
        referred: names of weights that are not in the file, see `lit_meta.zoo.references`.

    Raises:
        ValueError: they are not.
    """
    expected = {key: form for key, form in _forms(network).items() if key not in referred}
    for key in [*expected, *weights.header]:
        if key not in weights.header or key not in expected:
            raise ValueError(
                f"{weights.path} {'lacks' if key in expected else 'holds'} {key!r}, which the network of the card "
                f"{'has' if key in expected else 'does not have'}: {_AGAIN}"
            )
        if weights.header[key] != expected[key]:
            stored, own = (f"{dtype} {shape}" for dtype, shape in (weights.header[key], expected[key]))
            raise ValueError(f"{weights.path}: {key!r} is {stored}, in the network of the card {own}: {_AGAIN}")


def _forms(network: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor of a network, as the header of a file has them."""
    return {key: (_DTYPES.get(t.dtype, "?"), tuple(t.shape)) for key, t in network.state_dict().items()}


def check_snapshots(stored: TensorFile, network: nn.Module, experiences: int) -> None:
    """Checks that snapshots are of a network, the same tensors after each of some experiences.

    Raises:
        ValueError: they are not.
    """
    own = _forms(network)
    names: dict[str, set[str]] = {str(number): set() for number in range(1, experiences + 1)}
    for key, form in stored.header.items():
        number, _, name = key.partition("/")
        if number not in names or own.get(name) != form:
            raise ValueError(f"{stored.path} holds {key!r}, which is no tensor of the network of the card: {_AGAIN}")
        names[number].add(name)
    for number, held in names.items():
        if held != names["1"] or not held:
            raise ValueError(f"{stored.path} has not the same tensors for every experience (see {number}): {_AGAIN}")


def check_memory(
    path: Path, network: nn.Module, rules: Sequence[Rule], memories: Sequence[Mapping[str, Tensor]]
) -> None:
    """Checks that memory is what the rules would have in this network.

    Where a rule says what it remembers (`Rule.remembers`), that and no more: a quantity that was dropped, renamed, resized or
    set to zero would leave the network unprotected. Where it does not, what it keeps must be of a parameter, of a module, of
    a block, or of nothing in particular.

    Args:
        path: of the file, for the message.
        network: that learned.
        rules: that learned in it.
        memories: of every rule, by ``"quantity/name"``.

    Raises:
        ValueError: it is not.
    """
    for rule, memory in zip(rules, memories, strict=True):
        kept = rule.remembers(network)
        name = type(rule).__name__
        if kept is None:
            _check_places(path, network, memory)
            continue
        for key in memory:
            if key not in kept:
                raise ValueError(f"{path} holds {key!r}, which {name} does not keep of this network: {_AGAIN}")
        totals: dict[str, bool] = {}
        for key, part in kept.items():
            if key not in memory:
                if part.always:
                    raise ValueError(f"{path} lacks {key!r}, which {name} keeps of this network: {_AGAIN}")
                continue
            tensor = memory[key]
            if not part.fits(tensor.shape):
                raise ValueError(
                    f"{path}: {key!r} has shape {tuple(tensor.shape)}, in this network {name} keeps {part.shape}: {_AGAIN}"
                )
            if part.nonzero and tensor.numel():
                something = bool(tensor.any())
                if not something and tensor.dim() > 1:
                    raise ValueError(f"{path}: {key!r} is 0 everywhere, and {name} has learned: {_AGAIN}")
                quantity = decode_key(key)[0]
                totals[quantity] = totals.get(quantity, False) or something
        for quantity, something in totals.items():
            if not something:
                raise ValueError(f"{path}: {quantity!r} is 0 everywhere, and {name} has learned: {_AGAIN}")


def _check_places(path: Path, network: nn.Module, memory: Mapping[str, Tensor]) -> None:
    parameters, modules = dict(network.named_parameters()), dict(network.named_modules())
    named: dict[str, set[str]] = {}
    for key, tensor in memory.items():
        quantity, name = decode_key(key)
        place = name.removeprefix("*")
        if place not in parameters and place not in modules and not place.isdecimal():
            raise ValueError(f"{path} holds {key!r}, and the network has no {place!r}: {_AGAIN}")
        if name in parameters:
            if tensor.shape != parameters[name].shape:
                stored, own = tuple(tensor.shape), tuple(parameters[name].shape)
                raise ValueError(f"{path}: {key!r} has shape {stored}, its parameter {own}: {_AGAIN}")
            named.setdefault(quantity, set()).add(name)
    whole = set().union(*named.values())
    for quantity, names in named.items():
        if names != whole:
            raise ValueError(f"{path} lacks '{quantity}/{min(whole - names)}': {_AGAIN}")

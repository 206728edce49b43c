"""How what rules remember is written to files: one flat mapping of tensors, whose keys say whose each is.

A rule's own memory has keys ``"quantity/name"``, and ``"quantity/*"`` for what belongs to no parameter. Of several rules (or
whatever else comes in a sequence) the keys are numbered, ``"0:quantity/name"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

SEPARATOR = "/"
OVERALL = "*"


def encode_key(quantity: str, name: str) -> str:
    """The key of one tensor of a rule.

    Example:
        >>> encode_key("importance", "layer.weight")
        'importance/layer.weight'
    """
    return f"{quantity}{SEPARATOR}{name}"


def decode_key(key: str) -> tuple[str, str]:
    """The quantity and the name that a key is made of.

    Raises:
        ValueError: it is no such key.

    Example:
        >>> decode_key("importance/layer.weight")
        ('importance', 'layer.weight')
    """
    quantity, separator, name = key.partition(SEPARATOR)
    if not separator or not quantity:
        raise ValueError(f"a rule's state has keys like 'quantity{SEPARATOR}parameter', got {key!r}")
    return quantity, name


def encode_numbered(mappings: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Several mappings of tensors as one.

    Example:
        >>> import torch
        >>> sorted(encode_numbered([{"a": torch.zeros(1)}, {}, {"a": torch.ones(1)}]))
        ['0:a', '2:a']
    """
    return {f"{number}:{key}": tensor for number, mapping in enumerate(mappings) for key, tensor in mapping.items()}


def decode_numbered(tensors: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The mappings that `encode_numbered` has put together.

    Args:
        tensors: by numbered key.
        count: how many mappings there were; a mapping without tensors leaves no key behind.

    Raises:
        ValueError: a key without a number, or of more mappings than there were.

    Example:
        >>> import torch
        >>> [sorted(mapping) for mapping in decode_numbered({"0:a/b": torch.zeros(1)}, 2)]
        [['a/b'], []]
    """
    mappings: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for numbered, tensor in tensors.items():
        number, separator, key = numbered.partition(":")
        if not separator or not number.isdecimal() or int(number) >= count:
            raise ValueError(f"expected keys like '0:name' with numbers below {count}, got {numbered!r}")
        mappings[int(number)][key] = tensor
    return mappings

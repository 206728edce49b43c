"""The file format of rules' memory: one flat mapping of tensors, whose keys name the quantity and its parameter.

A rule's memory has keys ``"quantity/name"``, and ``"quantity/*"`` for what belongs to no parameter. The keys of several rules
(or of any other sequence) are numbered, ``"0:quantity/name"``.
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
    """The quantity and the name in a key.

    Raises:
        ValueError: the key has another form.

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
    """The mappings that `encode_numbered` has merged.

    Args:
        tensors: by numbered key.
        count: how many mappings there were; a mapping without tensors leaves no key behind.

    Raises:
        ValueError: a key has no number, or its number is not below ``count``.

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

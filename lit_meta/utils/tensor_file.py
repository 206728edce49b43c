"""The safetensors format, written a tensor at a time from where the tensors lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lit_meta.utils.raw import raw_bytes

# In the order in which `safetensors` writes them, the widest first, so that all values lie at multiples of their size.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_NAMES)}


def tensor_file(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The content of a safetensors file, in pieces: a header, and the values of one tensor after the other.

    `safetensors.torch.save` holds two further copies of all tensors at once; here there is none, or one of a single tensor that
    is on another device or not contiguous. Two names may share memory: it is written for each.

    Args:
        tensors: by name; they must not change until the last piece has been asked for.

    Raises:
        TypeError: a dtype that the format does not know here.

    Source:
        https://github.com/huggingface/safetensors#format

    Example:
        >>> from safetensors.torch import load
        >>> load(b"".join(tensor_file({"one": torch.ones(2)})))
        {'one': tensor([1., 1.])}
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"{name} is of {tensor.dtype}, and only tensors of plain numbers can be saved")
    named = sorted(tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0]))
    header, offset = {}, 0
    for name, tensor in named:
        offsets = [offset, offset + tensor.numel() * tensor.element_size()]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _pieces(text, [tensor for _, tensor in named])


def _pieces(header: bytes, tensors: list[Tensor]) -> Iterator[bytes | memoryview]:
    yield len(header).to_bytes(8, "little")
    yield header
    for tensor in tensors:
        yield raw_bytes(tensor)

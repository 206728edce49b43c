"""The safetensors format is written a tensor at a time, and read by its own library."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from safetensors.torch import load, load_file, save

from lit_meta.utils.files import read_folder, write_folder
from lit_meta.utils.io import save_tensors
from lit_meta.utils.tensor_file import tensor_file

SHARED = torch.arange(6.0).view(2, 3)
TENSORS = {
    "wide": torch.arange(3, dtype=torch.float64),
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "transposed": SHARED.T,
    "same memory": SHARED,
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "truth": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "learned": torch.nn.Parameter(torch.ones(2)),
    'a "name"': torch.ones(1, dtype=torch.int16),
}


def test_the_library_reads_what_was_written():
    tensors = load(b"".join(tensor_file(TENSORS)))
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def test_the_bytes_are_those_of_the_library():
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2), "c": torch.ones(1, dtype=torch.float16)}
    assert b"".join(tensor_file(tensors)) == save(tensors)
    assert b"".join(tensor_file({})) == save({})


def test_values_lie_at_multiples_of_their_size():
    content = b"".join(tensor_file(TENSORS))
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_other_numbers_are_refused_by_name():
    with pytest.raises(TypeError, match=r"phase is of torch\.complex128"):
        tensor_file({"phase": torch.zeros(1, dtype=torch.complex128)})


@pytest.mark.parametrize("folder", (False, True))
def test_writing_holds_no_second_copy(folder, tmp_path):
    tensors = {str(i): torch.full((1_000_000,), float(i)) for i in range(5)}
    tracemalloc.start()
    if folder:
        write_folder(tmp_path / "state", {"state.safetensors": tensor_file(tensors)})
    else:
        save_tensors(tmp_path / "state.safetensors", tensors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # Bytes; the tensors have 20 million.
    read = (
        load(read_folder(tmp_path / "state")["state.safetensors"])
        if folder
        else load_file(tmp_path / "state.safetensors")
    )
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())

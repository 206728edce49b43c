"""A rule's memory: what it keeps apart, and files that stay as they are."""

from __future__ import annotations

import pytest
import torch

from lit_meta.core.memory_codec import decode_numbered, encode_numbered
from lit_meta.core.state import State, apart
from lit_meta.utils.io import load_tensors, save_tensors
from lit_meta.utils.paths import zoo_folder

ENTRIES = sorted(path.parent for path in zoo_folder().glob("*/rule.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.name)
def test_files_of_the_zoo_are_read_and_written_to_the_last_byte(entry, tmp_path):
    tensors = load_tensors(entry / "rule.safetensors")
    count = 1 + max((int(key.partition(":")[0]) for key in tensors), default=0)  # A rule may remember nothing.
    states = [State() for _ in range(count)]
    for state, memory in zip(states, decode_numbered(tensors, count), strict=True):
        state.load_state_dict(memory)
    assert sum(state.bytes for state in states) == sum(tensor.nbytes for tensor in tensors.values())
    save_tensors(tmp_path / "rule.safetensors", encode_numbered(state.state_dict() for state in states))
    assert (tmp_path / "rule.safetensors").read_bytes() == (entry / "rule.safetensors").read_bytes()


def test_memory_of_the_whole_rule_is_one_tensor_and_keeps_its_key():
    state = State()
    state["importance"] = {"0.weight": torch.ones(2, 3)}
    state.overall["batches"] = torch.tensor(7)
    flat = state.state_dict()
    assert sorted(flat) == ["batches/*", "importance/0.weight"]
    assert "batches" in state
    assert sorted(state) == ["batches", "importance"]
    assert (len(state), state.bytes) == (2, 6 * 4 + 8)
    again = State()
    again.load_state_dict(flat)
    assert int(again.overall["batches"]) == 7
    assert same(again.state_dict(), flat)
    again.overall["batches"].add_(1)
    assert int(state.overall["batches"]) == 7, "a loaded state shares no memory with what it was loaded from"
    assert state["batches"] == {"*": torch.tensor(7)}, "as an item, it is a mapping of one tensor"


def test_loading_leaves_nothing_of_before():
    state = State()
    state.overall["batches"] = torch.tensor(7)
    state.load_state_dict({"importance/a": torch.ones(1)})
    assert "batches" not in state
    assert sorted(state) == ["importance"]


def test_only_memory_of_a_parameters_shape_grows():
    state = State()
    state["utility"] = {"weight": torch.ones(2, 3)}
    state["weight"] = {apart("weight"): torch.tensor(0.5)}
    state.overall["sums"] = torch.ones(2, 3)
    state.grow(["weight"], [torch.zeros(4, 3)])
    assert state["utility"]["weight"].tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 2
    assert state["weight"] == {"*weight": torch.tensor(0.5)}
    assert state.overall["sums"].shape == (2, 3)


@pytest.mark.parametrize("key", ("a/b", "x:a/b", ":a/b", "2:a/b", "-1:a/b"))
def test_a_key_of_no_rule_is_refused(key):
    with pytest.raises(ValueError, match="expected keys like '0:name' with numbers below 2"):
        decode_numbered({key: torch.zeros(1)}, 2)


def test_a_key_without_a_quantity_is_refused():
    for key in ("importance", "/weight"):
        with pytest.raises(ValueError, match="keys like 'quantity/parameter'"):
            State().load_state_dict({key: torch.zeros(1)})

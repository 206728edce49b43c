"""Files are written whole or not at all, damage is seen, and a folder has one owner."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter, OrderedDict
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_meta.utils import files, locks
from lit_meta.utils.encoding import decode, encode
from lit_meta.utils.files import DamagedError, read_folder, remove_partial, write_bytes, write_folder
from lit_meta.utils.locks import owned_folder

CONTENT = {"one": b"abc" * 20, "two": b""}


@pytest.mark.parametrize("failing", ("fsync", "write"))
def test_a_full_disk_leaves_the_former_file_and_nothing_else(failing, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_bytes(path, b"former")
    write_folder(tmp_path / "checkpoint", CONTENT)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(files, "_write_to_disk", full)
    for write in (lambda: write_bytes(path, b"new"), lambda: write_folder(tmp_path / "checkpoint", {"one": b""})):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert caught.value.errno == errno.ENOSPC
        assert Path(caught.value.filename).parent == tmp_path  # The user's name for it, not the temporary one.
    assert path.read_bytes() == b"former"
    assert read_folder(tmp_path / "checkpoint") == CONTENT
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "checkpoint"}


def test_a_folder_is_replaced_whole(tmp_path):
    for content in (CONTENT, {"three": b"3"}):
        write_folder(tmp_path / "checkpoint", content)
        assert read_folder(tmp_path / "checkpoint") == content
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_bit_flip_in_every_byte_of_every_file_is_seen(tmp_path):
    folder = tmp_path / "checkpoint"
    write_folder(folder, CONTENT)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for position in range(len(content)):
            for bit in (position % 8,):
                path.write_bytes(content[:position] + bytes([content[position] ^ (1 << bit)]) + content[position + 1 :])
                with pytest.raises(DamagedError):
                    read_folder(folder)
        path.write_bytes(content[:-1] if content else b"x")
        with pytest.raises(DamagedError):
            read_folder(folder)
        path.unlink()
        with pytest.raises(DamagedError, match="missing"):
            read_folder(folder)
        path.write_bytes(content)
    assert read_folder(folder) == CONTENT


def test_what_killed_writes_leave_is_removed(tmp_path):
    (tmp_path / ".checkpoint.1-aa.partial").mkdir()
    (tmp_path / ".metrics.json.1-bb.partial").write_text("")
    (tmp_path / "metrics.json").write_text("")
    remove_partial(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_has_one_owner(tmp_path):
    code = (
        "import sys, pathlib\nfrom lit_meta.utils.locks import owned_folder\n"
        "with owned_folder(pathlib.Path(sys.argv[1])):\n    print('owned', flush=True)\n    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "owned\n"
    with (
        pytest.raises(RuntimeError, match=f"in use by process {owner.pid}: wait until it has ended"),
        owned_folder(tmp_path),
    ):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with (
        owned_folder(tmp_path),  # The lock of a process that has died is taken over.
        pytest.raises(RuntimeError, match="by this process already"),
        owned_folder(tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())
    owner.stdin.close()
    owner.stdout.close()


def test_where_windows_locks_files_one_process_owns_a_folder(tmp_path, monkeypatch):
    taken = set()

    def locking(descriptor, mode, size):
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        if place in taken:
            raise OSError("locked")
        taken.add(place)

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("on Windows, signal 0 is Ctrl-C"))
    with owned_folder(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        monkeypatch.setattr(locks, "_owned", set())  # As another process sees it.
        with pytest.raises(RuntimeError, match="is in use by process"), owned_folder(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_where_files_cannot_be_locked_the_owners_process_decides(tmp_path, monkeypatch):
    from lit_meta.utils import locks

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", unsupported)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = locks.socket.gethostname()
    for pid, on, free in ((os.getppid(), host, False), (ended.pid, host, True), (ended.pid, "elsewhere", False)):
        (tmp_path / ".lock").write_text(f'{{"pid": {pid}, "host": "{on}"}}')
        if free:
            with owned_folder(tmp_path):
                pass
        else:
            with pytest.raises(RuntimeError, match=f"in use by process {pid}"), owned_folder(tmp_path):
                pass


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_nested_values_come_back_as_they_were(value):
    import json

    tensors: dict[str, torch.Tensor] = {}
    back = decode(json.loads(json.dumps(encode(value, tensors))), tensors)
    assert back == value
    assert repr(back) == repr(value)  # Types too.


def test_tensors_arrays_and_counters_come_back_as_they_were():
    tensors: dict[str, torch.Tensor] = {}
    value = {
        "a": [torch.ones(2, dtype=torch.bfloat16)],
        3: np.arange(3, dtype=np.uint32),
        "m": Counter({5: 2}),
        "p": (Path("x"), timedelta(minutes=2), {1, 2}),
    }
    back = decode(encode(value, tensors), tensors)
    assert torch.equal(back["a"][0], value["a"][0])
    assert back[3].dtype == np.uint32
    assert (back["m"], back["p"]) == (value["m"], value["p"])
    batchnorm = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    assert decode(encode(batchnorm, tensors), tensors)._metadata == batchnorm._metadata


def test_what_cannot_be_saved_is_named():
    with pytest.raises(TypeError, match="/scheduler/0 is a object, and only tensors and plain values"):
        encode({"scheduler": [object()]}, {})
    for made_up in ({"$call": "x"}, {"$tensor": "absent"}, {"$tuple": 3}):
        with pytest.raises(ValueError, match="stands for no value"):
            decode(made_up, {})

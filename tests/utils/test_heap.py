"""Free memory of the heap goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from lit_meta.utils.heap import _glibc, return_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def scattered(number):
    # Blocks below glibc's threshold, of which every tenth stays in use.
    warm = torch.zeros(8_000_000)
    del warm
    blocks = [torch.ones(1_000_000) for _ in range(number)]
    return blocks[::10]

kept = scattered(100)
before = resident()
return_free_memory()
print(before - resident() if _glibc() is not None else "no glibc")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_what_lies_between_blocks_in_use_is_returned():
    # Dask leaves settings of the allocator behind, and with any of them such blocks are returned as they are freed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    assert output == "no glibc" or int(output) > 250_000_000  # Of 360 million.


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    child = "from lit_meta.utils.heap import peak_bytes; print(peak_bytes())"
    parent = (
        "import subprocess, sys; large = bytearray(b'1' * 400_000_000); "
        f"print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True, check=True).stdout)"
    )
    output = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout
    assert int(output) < 300_000_000

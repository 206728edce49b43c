"""Two processes give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.integrations import distributed_naca

SCRIPT = Path(__file__).parent / "distributed_naca.py"


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
def test_local_learning_on_two_processes_is_that_on_one(tmp_path):
    root = str(SCRIPT.parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, str(SCRIPT), "2", str(tmp_path / "two.pt")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    distributed_naca.main(1, str(tmp_path / "one.pt"))
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    start = torch.cat([p.detach().flatten() for p in distributed_naca.Classifier().parameters()])
    assert (one - start).abs().max() > 1e-3
    torch.testing.assert_close(two, one)

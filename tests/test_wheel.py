"""The wheel: built, put elsewhere, it holds zoo and configs and evaluates an entry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_claims_one_name_and_holds_what_it_needs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"lit_meta"}
    for needed in ("py.typed", "zoo_entries/naca-mlp-digits/config.json", "configs/rule/naca.yaml"):
        assert f"lit_meta/{needed}" in names
    assert not [
        name for name in names if name.startswith("lit_meta/zoo_entries") and name.endswith((".py", ".pt", ".pkl"))
    ]


def test_an_installed_wheel_evaluates_a_zoo_entry(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    out = tmp_path / "out.json"
    code = (
        "import sys, lit_meta, lit_meta.cli; assert lit_meta.__file__.startswith(sys.argv[1]), lit_meta.__file__; "
        "sys.exit(lit_meta.cli.main(['evaluate', 'ewc-mlp-digits', '--json', sys.argv[2]]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code, str(site), str(out)], check=True, cwd=tmp_path, env=environment)
    facts = json.loads(out.read_text())
    assert facts["name"] == "ewc-mlp-digits"
    assert facts["average_accuracy"] > 0.15

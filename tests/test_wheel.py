"""The wheel: built, put elsewhere, it holds zoo and configs and evaluates an entry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


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
    for needed in ("py.typed", "zoo_entries/mlp.naca_split-digits/config.json", "configs/rule/naca.yaml"):
        assert f"lit_meta/{needed}" in names
    assert not [
        name for name in names if name.startswith("lit_meta/zoo_entries") and name.endswith((".py", ".pt", ".pkl"))
    ]


def installed(wheel: Path, site: Path) -> None:
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


def required(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of all distributions that an installer brings for one, from the metadata of those that are installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            requires = distribution(name).requires or ()
        except PackageNotFoundError:  # Not installed here, so that nothing that runs here needs it.
            continue
        for line in requires:
            requirement = Requirement(line)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in {"", *extras}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name for name, _ in seen}


def test_what_the_wheel_asks_for_is_enough(wheel, tmp_path):
    # As in a new virtual environment: links to what pip would bring, and nothing else that is installed here.
    site = tmp_path / "site"
    installed(wheel, site)
    asked = {Requirement(line) for line in metadata_of(wheel).get_all("Requires-Dist")}
    needed = {r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})}
    names = set().union(*(required(r.name, frozenset(r.extras)) for r in needed))
    assert {"torch", "lightning", "jsonargparse"} < names
    assert not {"optuna", "snntorch", "pytest"} & names
    for name in names:
        try:
            files = distribution(name).files or ()
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link, target = site / top, Path(distribution(name).locate_file(top))
            if not link.exists() and target.exists():
                link.symlink_to(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom lit_meta.cli import main\n"
        "assert main(['evaluate', 'mlp.ewc_split-digits']) == 0\nassert main(['sources']) == 0\n"
        "import importlib, pkgutil, lit_meta\n"
        "for module in pkgutil.walk_packages(lit_meta.__path__, 'lit_meta.'):\n"
        "    if not module.name.endswith('__main__'):\n        importlib.import_module(module.name)\n"
    )
    run = [sys.executable, "-I", "-S", "-W", "ignore", "-c", code, str(site)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_installed_wheel_evaluates_a_zoo_entry(wheel, tmp_path):
    site = tmp_path / "site"
    installed(wheel, site)
    out = tmp_path / "out.json"
    code = (
        "import sys, lit_meta, lit_meta.cli; assert lit_meta.__file__.startswith(sys.argv[1]), lit_meta.__file__; "
        "sys.exit(lit_meta.cli.main(['evaluate', 'mlp.ewc_split-digits', '--json', sys.argv[2]]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code, str(site), str(out)], check=True, cwd=tmp_path, env=environment)
    facts = json.loads(out.read_text())
    assert facts["name"] == "mlp.ewc_split-digits"
    assert facts["average_accuracy"] > 0.15

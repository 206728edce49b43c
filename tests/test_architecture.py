"""The shape of the package: imports point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lit_meta"

# From the bottom up; a module may import from its own line's package and from lines above it in this list.
LEVELS = (
    ("_version", "_names", "_paths", "_modes"),
    ("functional",),
    ("scratch", "layers", "products", "watch", "evaluation_watch", "batches", "saving", "networks"),
    ("rules",),
    ("checks", "local_gradients", "session"),
    ("data", "evaluation", "hosts", "figures"),
    ("metrics", "activity", "auditing"),
    ("callbacks", "checkpoints", "kept_features", "task_outputs", "stream", "experiment_config"),
    ("experiment", "fresh", "sweep_config"),
    ("zoo",),
    ("results", "report", "bench", "sweep", "leak", "classification", "along"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: height for height, names in enumerate(LEVELS) for name in names}


def top_level_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports when it is imported (not inside functions)."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_meta."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "lit_meta":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lit_meta.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = top_level_name(path)
    if own == "__init__":
        return
    assert own in LEVEL, f"say in LEVELS where {own} stands"
    for other in imported(path) - {own}:
        assert LEVEL[other] < LEVEL[own] or (LEVEL[other] == LEVEL[own] and own != "networks"), f"{own} imports {other}"


def test_functional_knows_nothing_of_the_package():
    for path in (PACKAGE / "functional").glob("*.py"):
        assert imported(path) <= {"functional"}


def test_importing_is_cheap_and_changes_nothing():
    # Avalanche takes seconds to import and Lightning too; neither is needed to print a version.
    code = (
        "import sys, lit_meta, lit_meta.cli; lit_meta.__version__; "
        "heavy = {'avalanche', 'lightning', 'torch', 'matplotlib.pyplot'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_random_state_and_files_are_left_alone_by_import():
    code = (
        "import torch, os; before = torch.get_rng_state(), os.getcwd(); import lit_meta.streams.fit, lit_meta.zoo; "
        "assert torch.equal(torch.get_rng_state(), before[0]) and os.getcwd() == before[1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_every_exported_name_exists():
    import lit_meta

    for name in lit_meta.__all__:
        assert getattr(lit_meta, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lit_meta.nothing  # noqa: B018

"""The shape of the package: imports point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lit_meta"

# The rooms, from the ground up. A room imports from rooms below it only, so that no two rooms can need each other.
ROOMS = (
    "utils",
    "functional",
    "core",
    "networks",
    "rules",
    "data",
    "evaluation",
    "integrations",
    "metrics",
    "cost",
    "callbacks",
    "streams",
    "experiments",
    "zoo",
    "report",
    "bench",
    "cli",
)
FLOOR = {room: floor for floor, room in enumerate(ROOMS)}
FILES = sorted(PACKAGE.rglob("*.py"))
# Where each library is allowed that the project may have to replace, or whose private parts move.
CONFINED = {"avalanche": ("data", "integrations/avalanche.py", "bench")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(source: str) -> set[str]:
    """Every module that a file imports, also inside functions; what is imported for type checking alone is left out."""
    tree = ast.parse(source)
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    modules: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that a reader and this test see where they lead"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imported_rooms(source: str) -> set[str]:
    parts = [module.split(".") for module in imported_modules(source)]
    return {part[1] for part in parts if part[0] == "lit_meta" and len(part) > 1}


def test_imports_inside_functions_and_of_the_package_itself_are_seen():
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from lit_meta.cli import main\n"
        "import lit_meta.utils.io\n"
        "def function():\n    from lit_meta import zoo\n    from lit_meta.report import write\n"
    )
    assert imported_rooms(source) == {"utils", "zoo", "report"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path):
    room = room_of(path)
    if room in ("__init__", "__main__", "_moved"):  # What the package exports, its command, and former names.
        return
    assert room == "_version" or room in FLOOR, f"say in ROOMS where {room} stands"
    above = {
        other
        for other in imported_rooms(path.read_text()) - {room, "_version"}
        if other in FLOOR and FLOOR[other] >= FLOOR[room]
    }
    assert not above, f"{room} stands below {', '.join(sorted(above))}"


def test_every_room_exists_and_says_what_it_is_for():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())), room


def test_functional_knows_nothing_of_the_package():
    for path in (PACKAGE / "functional").glob("*.py"):
        assert imported_rooms(path.read_text()) <= {"functional"}


@pytest.mark.parametrize("library", CONFINED)
def test_libraries_that_may_go_are_imported_in_few_places(library):
    for path in FILES:
        if any(module.split(".")[0] == library for module in imported_modules(path.read_text())):
            place = path.relative_to(PACKAGE).as_posix()
            assert place.startswith(CONFINED[library]), f"{place} imports {library}"


def test_importing_is_cheap_and_changes_nothing():
    # Avalanche takes seconds to import and Lightning too; neither is needed to print a version.
    code = (
        "import sys, lit_meta, lit_meta.cli; lit_meta.__version__; "
        "heavy = {'avalanche', 'lightning', 'torch', 'matplotlib.pyplot'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_random_state_and_files_are_left_alone_by_import():
    code = (
        "import torch, os; before = torch.get_rng_state(), os.getcwd(); import lit_meta.streams, lit_meta.zoo; "
        "assert torch.equal(torch.get_rng_state(), before[0]) and os.getcwd() == before[1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_every_exported_name_exists():
    import lit_meta

    for name in lit_meta.__all__:
        assert getattr(lit_meta, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        lit_meta.nothing  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_an_attribute_of_the_package(room):
    code = f"import lit_meta; assert lit_meta.{room}.__name__ == 'lit_meta.{room}'"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=PACKAGE.parent)


def test_importing_the_package_beside_lightning_adds_next_to_nothing():
    # Modules are counted, not seconds, which depend on the machine.
    code = (
        "import sys, lightning; before = set(sys.modules); import lit_meta; lit_meta.__version__; "
        "added = set(sys.modules) - before; assert len(added) < 20, sorted(added)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=PACKAGE.parent)

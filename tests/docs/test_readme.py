"""The README is true: it shows every way, its table is that of the files, its paths exist; its blocks run in `test_blocks`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tables import results
from tests.docs.test_blocks import blocks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_readme_is_short_and_shows_every_way():
    assert len(README.splitlines()) < 150
    assert len(blocks("README.md")) == 4
    assert len(blocks("CONTRIBUTING.md")) == 1


def test_the_table_of_rooms_names_all_of_them():
    table = README[README.index("## The rooms") :]
    named = {
        room
        for line in table.splitlines()
        if line.startswith("| `")
        for room in re.findall(r"`(\w+)/`", line.split("|")[1])
    }
    assert named == {path.parent.name for path in (ROOT / "lit_meta").glob("*/__init__.py")}


def test_the_version_to_cite_is_that_of_the_package():
    from lit_meta import __version__

    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_table_is_made_from_the_files(tmp_path):
    page = tmp_path / "results.md"
    page.write_text((ROOT / "docs" / "results.md").read_text())
    changed = results.write(page, results.table(results.collect(ROOT / "docs" / "results")))
    assert not changed, "run `make docs`"


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_shown_exist():
    from lit_meta.cli import parser

    section = README[README.index("## The command") : README.index("## Results")]
    shown = set(re.findall(r"`(?:lit-meta )?([a-z]+)[^`]*`", section)) - {"lit"}
    assert {"run", "report", "evaluate", "audit", "zoo", "sweep", "bench", "rules", "scenarios"} <= shown
    known = parser().format_help()
    assert all(re.search(rf"^ +{command}\b", known, flags=re.MULTILINE) for command in shown)


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no table here")
    with pytest.raises(ValueError, match="results:begin"):
        results.write(page, "")

"""The site: every page is in the navigation, tables and reference are those of the code, every block of Python runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tables import choose, reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages whose blocks run here, each block by itself, and what the text promises of their results.
PAGES = (
    "start.md",
    "events.md",
    "weekly.md",
    "images.md",
    "share.md",
    "report.md",
    "measuring.md",
    "configuration.md",
    "one-class-at-a-time.md",
)
# Whose blocks run elsewhere, or need what a test does not have: processes of their own, a GPU, weights of a backbone.
ELSEWHERE = {"data.md", "streams.md", "sums.md", "zoo.md", "extend.md", "distributed.md", "backbones.md"}


def navigation(entries: list[Any]) -> list[str]:
    return [
        page
        for entry in entries
        for value in entry.values()
        for page in ([value] if isinstance(value, str) else navigation(value))
    ]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] != "extend"}
    assert set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == pages


def test_blocks_of_every_page_run_somewhere():
    shown = {path.name for path in DOCS.glob("*.md") if blocks(path.name)}
    assert shown - ELSEWHERE == set(PAGES)


@pytest.mark.filterwarnings("ignore:No loggers specified")
@pytest.mark.parametrize(("page", "index"), [(page, i) for page in PAGES for i in range(len(blocks(page)))])
def test_each_block_runs_by_itself(page, index, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if "snntorch" in blocks(page)[index]:
        pytest.importorskip("snntorch")
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(blocks(page)[index], page, "exec"), names)
    assert capsys.readouterr().out
    if (page, index) == ("start.md", 0):
        assert 0.87 < names["result"].average_accuracy < 0.93
        assert (tmp_path / "start.png").stat().st_size > 10_000


def test_the_table_by_need_is_that_of_the_results():
    assert choose.table() in (DOCS / "choose.md").read_text(), "run `make docs`"


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_has_every_public_name(name):
    assert (DOCS / "reference" / f"{name}.md").read_text() == reference.page(*reference.PAGES[name]), "run `make docs`"

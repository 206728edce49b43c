"""The site: every page is in the navigation, tables and reference are those of the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tables import choose, reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def navigation(entries: list[Any]) -> list[str]:
    return [
        page
        for entry in entries
        for value in entry.values()
        for page in ([value] if isinstance(value, str) else navigation(value))
    ]


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] != "extend"}
    assert set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == pages


def test_the_table_by_need_is_that_of_the_results():
    assert choose.table() in (DOCS / "choose.md").read_text(), "run `make docs`"


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_has_every_public_name(name):
    assert (DOCS / "reference" / f"{name}.md").read_text() == reference.page(*reference.PAGES[name]), "run `make docs`"

"""The README is true: its snippets run, its table is that of the files, its paths exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tables import results

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:No loggers specified")
def test_the_snippets_run_in_order(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) >= 5
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    assert capsys.readouterr().out


def test_the_table_is_made_from_the_files(tmp_path):
    page = tmp_path / "results.md"
    page.write_text((ROOT / "docs" / "results.md").read_text())
    changed = results.write(page, results.table(results.found(ROOT / "docs" / "results")))
    assert not changed, "run `make docs`"


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_shown_exist():
    from lit_meta.cli import parser

    shown = set(re.findall(r"^ +lit-meta ([a-z]+)", README, flags=re.MULTILINE))
    assert {"run", "evaluate", "zoo"} <= shown
    known = parser().format_help()
    assert all(re.search(rf"^ +{command} ", known, flags=re.MULTILINE) for command in shown)


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no table here")
    with pytest.raises(ValueError, match="results:begin"):
        results.write(page, "")

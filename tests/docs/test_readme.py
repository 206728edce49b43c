"""The README is true: its snippets run, its table is that of the files, its paths exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from docs.tables import results

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# What the text around a snippet says of its result.
PROMISES: dict[tuple[str, int], dict[str, Callable[[dict[str, Any]], bool]]] = {
    ("README.md", 0): {"EWC ends at about 90 %": lambda names: bool(0.87 < names["accuracy"].mean() < 0.93)},
    ("README.md", 1): {
        "about 99 %": lambda names: names["result"].average_accuracy > 0.98,
        "nothing is forgotten": lambda names: names["result"].forgetting < 0.01,
    },
    ("README.md", 2): {"EWC helps": lambda names: bool(accuracy_on(names).mean() > 0.87)},
}


def accuracy_on(names: dict[str, Any]) -> Tensor:
    return names["evaluate"](names["network"], names["benchmark"])


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


SNIPPETS = [
    (page, i)
    for page in ("README.md", "CONTRIBUTING.md", "docs/data.md", "docs/streams.md")
    for i in range(len(snippets(page)))
]


@pytest.mark.filterwarnings("ignore:No loggers specified")
@pytest.mark.parametrize(("page", "index"), SNIPPETS)
def test_each_snippet_runs_by_itself(page, index, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "snippet"}
    exec(compile(snippets(page)[index], page, "exec"), namespace)
    assert capsys.readouterr().out
    for name, promise in PROMISES.get((page, index), {}).items():
        assert promise(namespace), name


def test_readme_is_short_and_shows_every_way():
    assert len(README.splitlines()) < 150
    assert len(snippets("README.md")) == 4
    assert len(snippets("CONTRIBUTING.md")) == 1


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

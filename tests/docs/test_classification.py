"""The page on classification says what the committed results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from docs.tables import classification, results

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = RESULTS.parent / "classification.md"


def test_the_page_holds_the_table_of_the_committed_results():
    assert classification.table(classification.rows(RESULTS)) in PAGE.read_text()


def test_the_script_writes_the_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:begin -->\n<!-- results:end -->\nafter\n")
    assert classification.main(page)
    assert classification.table(classification.rows(RESULTS)) in page.read_text()


def classifications():
    return [*RESULTS.glob("*-classification*.json"), *RESULTS.glob("*.naca_mnist.json")]


def test_classification_is_not_among_the_streams():
    names = {row["name"] for row in results.collect(RESULTS)}
    assert names
    assert not names & {path.stem for path in classifications()}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make it with lit-meta run mlp\.naca_mnist"):
        classification.rows(tmp_path)
    for path in classifications():
        shutil.copy(path, tmp_path)
    path = tmp_path / "lif-mlp.naca_mnist.json"
    report = json.loads(path.read_text())
    del report["rule"]
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="no results of the rule"):
        classification.rows(tmp_path)

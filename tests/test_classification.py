"""The page on classification says what the committed results say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lit_meta import classification, results
from lit_meta.cli import main

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PAGE = RESULTS.parent / "classification.md"


def test_the_page_holds_the_table_of_the_committed_results():
    assert classification.table(classification.rows(RESULTS)) in PAGE.read_text()


def test_the_command_writes_the_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:begin -->\n<!-- results:end -->\nafter\n")
    assert main(["results", str(page), "--classification", "--folder", str(RESULTS)]) == 0
    assert classification.table(classification.rows(RESULTS)) in page.read_text()


def test_classification_is_not_among_the_streams():
    names = {row["name"] for row in results.found(RESULTS)}
    assert names
    assert not names & {path.stem for path in RESULTS.glob("*-classification.json")}


def test_what_is_missing_is_named(tmp_path, capsys):
    command = ["results", "--classification", "--folder", str(tmp_path)]
    assert main(command) == 1
    assert "make it with lit-meta run naca-mlp-mnist-classification" in capsys.readouterr().err
    for path in RESULTS.glob("*-classification.json"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "naca-snn-mnist-classification.json"
    report = json.loads(path.read_text())
    del report["rule"]
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="no results of the rule"):
        classification.rows(tmp_path)

"""The table of published numbers says what the committed results say."""

from __future__ import annotations

import json
import shutil

import pytest

from docs.tables import published, results
from docs.tables.published import Row
from lit_meta.experiments.loading import load_experiment

PAGE = published.DOCS / "published.md"


def test_the_page_holds_the_table_of_the_committed_results():
    assert published.table() in PAGE.read_text()


def test_every_row_names_experiments_that_exist():
    for row in published.ROWS:
        assert load_experiment(row.experiment).name == row.experiment
        assert (
            row.honest is None or load_experiment(row.honest[0]).protocol == "standard" or "batching" in row.honest[1]
        )


@pytest.mark.parametrize(
    ("number", "spread", "mean", "expected"),
    (
        (80.0, 4.0, 0.73, "**yes**"),
        (80.0, 4.0, 0.71, "no, 9.0 below"),
        (80.0, 4.0, 0.95, "**yes**"),
        (80.0, None, 0.792, "**yes**"),
        (80.0, None, 0.785, "no, 1.5 below"),
        (99.0, 0.05, 0.982, "**yes**"),
        (None, None, 0.5, "nothing to compare with"),
    ),
)
def test_verified_is_two_spreads_or_a_point(number, spread, mean, expected):
    row = Row("a rule", "a protocol", number, spread, "a source", "an-experiment")
    assert published.verdict(row, {"mean": mean}) == expected


def test_what_was_not_run_and_what_has_another_config_now_is_said(tmp_path):
    rows = [Row("EWC", "theirs", 94.0, None, "a paper", "permuted-mnist-ewc", reason="long")]
    assert "not run yet; long: `lit-meta run permuted-mnist-ewc`" in published.table(tmp_path, rows)
    shutil.copy(published.FOLDER / "permuted-mnist-ewc.json", tmp_path)
    assert "**yes**; long" in published.table(tmp_path, rows)
    path = tmp_path / "permuted-mnist-ewc.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "scenario": {**report["scenario"], "experiences": 3}}))
    assert "made with an earlier config" in published.table(tmp_path, rows)


def test_results_of_rounded_products_are_marked_and_explained():
    report = {"matmul_precision": "medium"}
    assert results.mark(report) == " †"
    assert results.mark({}) == results.mark({"matmul_precision": "highest"}) == ""
    assert results.with_note("| x † |").endswith(results.PRECISION_NOTE)
    assert results.with_note("| x |") == "| x |"
    assert results.table(results.collect(published.FOLDER)) in (published.DOCS / "results.md").read_text()

"""Going on with an entry: the old classes stay with the rule's memory, and are lost without it."""

from __future__ import annotations

from docs.tables.going_on import RESULTS, go_on, table
from docs.tables.results import DOCS
from lit_meta.utils.io import load_json


def test_two_new_digits_cost_the_old_ones_less_than_half_a_point():
    result = go_on("patch-net.recursive-readout_split-digits", 0, naive_epochs=10)
    assert result["before"] > 0.97
    assert result["before"] - result["rule"]["old"] < 0.005
    assert result["rule"]["new"] > 0.95
    assert result["naive"]["old"] < result["before"] - 0.3


def test_the_page_says_what_was_measured():
    results = load_json(RESULTS)
    assert table(results) in (DOCS / "zoo.md").read_text()
    for run in results["runs"]:
        assert run["before"] - run["rule"]["old"] < 0.005
        assert run["before"] - run["naive"]["old"] > 0.3

"""The page on the leak says what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.tables import leak

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = RESULTS.parent / "leak.md"


def test_the_page_holds_the_table_of_the_committed_results():
    assert leak.table(leak.rows(RESULTS)) in PAGE.read_text()


def test_the_claims_of_the_page_hold_in_the_committed_results():
    by = {(row.gate, row.plasticity): row.accuracy for row in leak.rows(RESULTS)}
    pure, mixed, single = leak.BATCHINGS
    published, spread = 100 * by["batch mean (published)", "NACA"][pure]["mean"], leak.PUBLISHED
    sd = 100 * by["batch mean (published)", "NACA"][pure]["sd"]
    assert abs(published - spread[0]) < 2 * sd
    for gate in ("batch mean (published)", "own sample"):
        pairs = zip(by[gate, "off"][pure]["values"], by[gate, "NACA"][pure]["values"], strict=True)
        assert all(off > naca for off, naca in pairs)
    for plasticity in ("NACA", "off", "backpropagation"):
        assert by["batch mean (published)", plasticity][mixed]["mean"] < 0.15
        own = by["own sample", plasticity]
        assert own[pure] == own[mixed]
        assert abs(own[single]["mean"] - own[mixed]["mean"]) < 0.02


def test_the_page_holds_the_streams_of_the_publication():
    streams = leak.streams(RESULTS)
    assert leak.streams_table(streams) in PAGE.read_text()
    assert leak.beside_table(streams) in PAGE.read_text()
    pure, mixed, _ = leak.BATCHINGS
    by = {(stream.data, stream.network): stream for stream in streams}
    for (data, network), stream in by.items():
        # The same networks know nothing once the batches do not tell them.
        assert stream.paper["NACA"][mixed]["mean"] < 0.15, (data, network)
        for learner in stream.beside.keys() & {"naive", "EWC"}:
            assert stream.beside[learner]["mean"] < 0.12, (data, network, learner)
        if stream.published is None:
            continue
        reached = stream.paper["NACA"][pure]
        within = abs(100 * reached["mean"] - stream.published[0]) < 2 * 100 * reached["sd"]
        assert within, (data, network)


def test_what_the_page_says_of_passes_is_in_the_committed_results():
    page = PAGE.read_text()
    values = {}
    for name in (leak.STANDARD, f"{leak.STANDARD}-stopped"):
        report = json.loads((RESULTS / f"{name}.json").read_text())
        for learner in ("rule", "plasticity-off"):
            found = report[learner]["average_accuracy"]
            values[name, learner] = found["values"]
            by_seed = ", ".join(f"{100 * value:.1f}" for value in found["values"])
            assert f"| {by_seed} | {100 * found['mean']:.1f} ± {100 * found['sd']:.1f} |" in page
    for learner, unchanged in (("rule", 4), ("plasticity-off", 1)):
        once, stopped = values[leak.STANDARD, learner], values[f"{leak.STANDARD}-stopped", learner]
        assert sum(a == b for a, b in zip(once, stopped, strict=True)) == unchanged
        assert all(b <= a for a, b in zip(once, stopped, strict=True))


def test_the_figure_has_a_bar_for_every_number():
    rows = leak.rows(RESULTS)
    axes = leak.figure(rows).axes[0]
    heights = sorted(bar.get_height() for container in axes.containers for bar in getattr(container, "patches", ()))
    expected = sorted(100 * row.accuracy[how]["mean"] for row in rows for how in leak.BATCHINGS)
    assert heights == pytest.approx(expected)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it with lit-meta run naca-mlp-mnist-paper"):
        leak.main(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="naca-mlp-mnist-paper"):
        leak.streams(tmp_path)
    for name in (leak.PAPER, leak.STANDARD):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rule": {}}))
    with pytest.raises(ValueError, match="no accuracy by batching of 'rule'"):
        leak.rows(tmp_path)

"""The framework of the benchmarks: what it measures, how it compares, and what it says."""

from __future__ import annotations

import itertools
import json

import pytest

from lit_meta import bench
from lit_meta.bench import Benchmark, Scaling
from lit_meta.bench._benchmark import CLOCKS
from lit_meta.bench._statistics import ratio_of_medians, scaling_exponent
from lit_meta.cli import main


def pair(subject: float, baseline: float, target: float | None = None) -> Benchmark:
    return Benchmark("group/pair", "one", "other", lambda: lambda: subject, lambda: lambda: baseline, target, "bytes")


def test_the_ratio_of_medians_and_its_interval():
    # Medians 3 and 6; no resample can leave the range of the single ratios of order statistics.
    ratio, low, high = ratio_of_medians([1, 2, 3, 4, 100], [2, 4, 6, 8, 200])
    assert ratio == 0.5
    assert low == high == 0.5  # Pairs are resampled together, so a slow moment of the machine cancels.
    ratio, low, high = ratio_of_medians([1, 2, 3, 4, 5], [3, 3, 3, 3, 3])
    assert ratio == 1
    assert 1 / 3 <= low < 1 < high <= 5 / 3


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    import numpy as np

    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        subject, baseline = np.exp(0.2 * generator.standard_normal((2, 25))) * [[0.8], [1.0]]
        _, low, high = ratio_of_medians(subject.tolist(), baseline.tolist(), seed=trial)
        covered += low <= 0.8 <= high
    assert covered / 200 > 0.88


def test_a_scaling_exponent_is_recovered():
    values = [10, 20, 40, 80]
    costs = [[v**1.5 * noise for noise in (0.9, 1.0, 1.1)] for v in values]
    exponent, low, high = scaling_exponent(values, costs)
    assert exponent == pytest.approx(1.5)
    assert low < 1.5 < high


def test_targets_are_judged():
    assert pair(1, 2, 0.5).run(repeats=2).holds is True
    assert pair(1, 2, 0.49).run(repeats=2).holds is False
    assert pair(1, 2).run(repeats=2).holds is None


def test_subject_and_baseline_take_turns_and_turns_change():
    order: list[str] = []
    benchmark = Benchmark(
        "g/x",
        "s",
        "b",
        lambda: lambda: (order.append("s"), 1)[1],
        lambda: lambda: (order.append("b"), 1)[1],
        quantity="bytes",
    )
    benchmark.run(repeats=3)
    assert "".join(order) == "sbbssb"


@pytest.mark.parametrize("clock", ("wall", "processor"))
def test_times_are_those_of_the_work(clock, monkeypatch):
    """By a clock that only work moves: a real one would measure the machine's other work as well."""
    now = 0.0

    def busy(seconds: float):
        def work() -> None:
            nonlocal now
            now += seconds

        return work

    monkeypatch.setitem(CLOCKS, clock, lambda: now)
    result = Benchmark("g/x", "s", "b", lambda: busy(0.002), lambda: busy(0.004)).run(repeats=5, clock=clock)
    assert result.ratio == pytest.approx(0.5)
    assert result.baseline_median == pytest.approx(0.004)


def test_a_call_that_should_return_a_number_and_does_not_is_refused():
    benchmark = Benchmark("g/x", "s", "b", lambda: lambda: None, lambda: lambda: 1.0, quantity="bytes")
    with pytest.raises(ValueError, match="must return a number"):
        benchmark.run(repeats=2)
    with pytest.raises(ValueError, match="at least 2 repeats"):
        pair(1, 1).run(repeats=1)


def test_the_registry_holds_what_the_files_declare_once_each():
    known = bench.benchmarks()
    assert {"naca/1-hidden", "naca/3-hidden", "naca/6-hidden", "naca/floor"} <= known.keys()
    assert all(id == benchmark.id and "/" in id for id, benchmark in known.items())
    assert [b.id for b in bench.choose(["naca/floor"])] == ["naca/floor"]
    assert {b.id for b in bench.choose(["naca"])} == {id for id in known if id.startswith("naca/")}
    with pytest.raises(KeyError, match="did you mean 'naca'"):
        bench.choose(["nacca"])


@pytest.fixture
def declared(monkeypatch):
    ticks = itertools.count(1)
    by_id = {
        "a/pair": Benchmark("a/pair", "half", "whole", lambda: lambda: 1.0, lambda: lambda: 2.0, 0.4, "bytes"),
        "a/growth": Scaling("a/growth", "loop", "size", (1000, 4000), lambda n: lambda: sum(range(20 * n))),
        "a/absent": Benchmark("a/absent", "x", "y", lambda: next, lambda: next, requires=("no_such_module",)),
    }
    monkeypatch.setattr(bench, "benchmarks", lambda: by_id)
    return ticks


def test_the_command_writes_a_table_rows_and_markdown(declared, tmp_path, capsys):
    page, facts_file = tmp_path / "page.md", tmp_path / "facts.json"
    page.write_text("# Speed\n\n<!-- bench: begin -->\nstale\n<!-- bench: end -->\n\nThe end.\n")
    assert main(["bench", "--full", "--repeats", "3", "--json", str(facts_file), "--markdown", str(page)]) == 0
    facts = json.loads(facts_file.read_text())
    (row,) = facts["rows"]
    assert {"id", "subject", "baseline", "ratio", "low", "high", "target", "holds"} <= row.keys()
    assert (row["ratio"], row["holds"], facts["missed"]) == (0.5, False, ["a/pair"])
    assert facts["scaling"][0]["exponent"] == pytest.approx(1.0, abs=0.5)
    assert facts["skipped"] == {"a/absent": ["no_such_module"]}
    text = page.read_text()
    assert text.startswith("# Speed\n\n<!-- bench: begin -->")
    assert text.endswith("<!-- bench: end -->\n\nThe end.\n")
    assert "stale" not in text
    assert "| a/pair | half : whole | 0.500 |" in text
    assert "left out: a/absent" in capsys.readouterr().out


def test_former_results_are_put_together_without_measuring(declared, tmp_path, monkeypatch, capsys):
    files = []
    for id in ("a/pair", "a/growth"):
        files.append(str(tmp_path / f"{len(files)}.json"))
        assert main(["bench", id, "--repeats", "2", "--json", files[-1]]) == 0
    whole = tmp_path / "whole.json"
    monkeypatch.setattr(bench, "benchmarks", dict)
    assert main(["bench", "--from_json", *files, "--json", str(whole)]) == 0
    facts = json.loads(whole.read_text())
    assert [row["id"] for row in (*facts["rows"], *facts["scaling"])] == ["a/pair", "a/growth"]
    assert facts["missed"] == ["a/pair"]
    assert main(["bench", "--from_json", files[0], files[0]]) == 1
    assert "'a/pair' more than once" in capsys.readouterr().err
    other = json.loads((tmp_path / "1.json").read_text())
    (tmp_path / "1.json").write_text(json.dumps({**other, "machine": {"cores": 1}}))
    assert main(["bench", "--from_json", *files]) == 1
    assert "in another way" in capsys.readouterr().err


def test_a_missed_target_is_a_status_only_when_asked_for(declared):
    assert main(["bench", "a/pair", "--repeats", "2", "--check"]) == 1
    assert main(["bench", "a/pair", "--repeats", "2"]) == 0


def test_bad_input_is_one_line(declared, tmp_path, capsys):
    assert main(["bench", "b"]) == 1
    assert "unknown benchmark 'b'" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("no markers")
    assert main(["bench", "a/pair", "--repeats", "2", "--markdown", str(page)]) == 1
    assert "bench: begin" in capsys.readouterr().err


def test_without_subjects_a_few_are_measured_and_full_takes_none():
    known = bench.benchmarks()
    assert set(bench.BRIEF) < set(known)
    assert not any(known[id].missing for id in bench.BRIEF)
    assert main(["bench", "--full", "rules"]) == 1
    assert main(["bench", "rules", "--repeats", "1"]) == 1
    assert main(["bench", "rules", "--repeats", "0"]) == 1


def test_a_bench_that_is_stopped_keeps_the_rows_it_has(declared, tmp_path, monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    known = {**bench.benchmarks(), "a/stopped": Benchmark("a/stopped", "x", "y", stop, stop)}
    monkeypatch.setattr(bench, "benchmarks", lambda: known)
    facts_file = tmp_path / "facts.json"
    assert main(["bench", "--full", "--repeats", "2", "--json", str(facts_file)]) == 130
    facts = json.loads(facts_file.read_text())
    assert [row["id"] for row in (*facts["rows"], *facts["scaling"])] == ["a/pair", "a/growth"]
    assert facts["unfinished"] == ["a/stopped"]
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert any(line.split()[:2] == ["a/pair", "0.500"] for line in lines)
    assert max(map(len, lines)) <= 110
    assert all(len(line) <= 80 for line in lines if line.startswith("a/"))
    assert told.err.startswith("[1/4, ")
    assert main(["bench", "--from_json", str(facts_file)]) == 0

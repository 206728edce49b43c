"""What a report says of runs whose numbers are known, and what it says of folders that hold none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lit_meta import networks
from lit_meta.cli import main
from lit_meta.report import read_run, run_panels, write_report
from lit_meta.report.html import batching_table, page, results_table
from lit_meta.report.network_panels import raster
from lit_meta.report.panel import Panel
from lit_meta.report.panels import cost_panel
from lit_meta.report.stream_panels import _by_class
from lit_meta.report.style import COLORS, learner_series, run_series
from lit_meta.report.text import summary
from lit_meta.report.weight_figures import first_and_last
from lit_meta.report.write import compare
from lit_meta.utils.io import load_tensors, save_tensors
from tests.report.conftest import MakeRun

RULE = [[[1.0, 0.0], [0.6, 0.8]], [[0.9, 0.0], [0.5, 0.7]], [[0.8, 0.0], [0.4, 0.6]]]
NAIVE = [[[1.0, 0.0], [0.0, 1.0]]] * 3
JOINT = [[[0.9, 0.9]]] * 3


def test_measures_of_a_known_run(make_run: MakeRun) -> None:
    run = read_run(make_run({"joint": JOINT, "rule": RULE, "naive": NAIVE}))
    assert list(run.learners) == ["rule", "naive", "joint"]
    rule = run.learners["rule"]
    assert float(rule.accuracy.mean) == pytest.approx(0.6)
    assert float(rule.forgetting.mean) == pytest.approx(0.4)  # type: ignore[union-attr]
    np.testing.assert_allclose(rule.seen.mean, [0.9, 0.6])
    assert float(rule.anytime.mean) == pytest.approx(0.75)  # type: ignore[union-attr]
    # Student: 0.1 / √3 times 4.303, the quantile of two degrees of freedom.
    assert float(rule.accuracy.high - rule.accuracy.mean) == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert run.learners["joint"].forgetting is None
    assert rule.gap is None
    assert rule.cost("seconds") == 2.0


def test_what_the_summary_says(make_run: MakeRun) -> None:
    sentences = summary(read_run(make_run({"rule": RULE, "naive": NAIVE, "joint": JOINT})))
    assert sentences[0] == (
        "EWC ends at an average accuracy of 60.0 [35.2, 84.8] %. On average, an experience lost 40.0 points of accuracy "
        "after it was learned."
    )
    assert (
        "50.0 [50.0, 50.0] %: a difference of +10.0 [-14.8, +34.8] points, seed by seed; the two cannot be told"
        in sentences[1]
    )
    assert sentences[2].endswith("90.0 [90.0, 90.0] %; the rule closes 25 % of the gap between no rule and this bound.")
    assert "few seeds" in sentences[3]


@pytest.mark.parametrize(
    ("rule", "verdict"),
    (
        ([[[1.0, 0.0], [0.9, 0.9]]] * 3, "the rule ends higher with 3 of 3 seeds"),
        ([[[1.0, 0.0], [0.1, 0.1]]] * 3, "the rule ends lower with 3 of 3 seeds"),
    ),
)
def test_the_verdict_follows_the_interval(make_run: MakeRun, rule: list[list[list[float]]], verdict: str) -> None:
    sentences = summary(read_run(make_run({"rule": rule, "naive": NAIVE, "joint": JOINT})))
    assert verdict in sentences[1]
    assert ("closes nothing" in sentences[2]) == ("lower" in verdict)


def test_one_seed_gets_no_interval(make_run: MakeRun) -> None:
    sentences = summary(read_run(make_run({"rule": RULE[:1], "naive": NAIVE[:1]})))
    assert sentences[0].startswith("EWC ends at an average accuracy of 70.0 %.")
    assert "+20.0 points with one seed" in sentences[1]
    assert "A single seed says nothing" in sentences[2]


def test_the_paper_protocol_carries_its_warning(make_run: MakeRun) -> None:
    text = page([read_run(make_run({"rule": RULE}, protocol="paper"))], [([], [])], [])
    assert '<p class="warning">Protocol “paper”' in text
    assert "must not be compared" in text


def test_forgetting_by_class_follows_the_order_of_classes(make_run: MakeRun) -> None:
    # Seeds 0 and 2 learn class 0 first, seed 1 class 1.
    labels, learned, final = _by_class(read_run(make_run({"rule": RULE})).learners["rule"])  # type: ignore[misc]
    assert labels == ["0", "1"]
    np.testing.assert_allclose(learned, [(1.0 + 0.7 + 0.8) / 3, (0.8 + 0.9 + 0.6) / 3])
    np.testing.assert_allclose(final, [(0.6 + 0.7 + 0.4) / 3, (0.8 + 0.5 + 0.6) / 3])


def test_what_cannot_be_drawn_is_named(make_run: MakeRun) -> None:
    panels, left_out = run_panels(read_run(make_run({"rule": RULE})))
    assert [panel.name for panel in panels] == [
        "accuracy_along_stream",
        "accuracy_matrix",
        "forgetting",
        "forgetting_by_class",
        "cost_accuracy",
    ]
    assert [text.split(":")[0] for text in left_out] == [
        "How far weights moved",
        "Synapses changed by each experience",
        "Spike raster",
    ]


def test_a_run_of_the_joint_bound_alone(make_run: MakeRun) -> None:
    panels, left_out = run_panels(read_run(make_run({"joint": JOINT})))
    assert [panel.name for panel in panels] == ["cost_accuracy"]
    assert any("no stream of experiences" in text for text in left_out)


def test_runs_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run({"joint": JOINT, "rule": RULE}, name="one", folder="one")
    second = make_run({"<control>": NAIVE}, name="two", folder="two")
    facts = write_report([first, second], file=tmp_path / "all.html")
    text = (tmp_path / "all.html").read_text()
    assert {path.name for path in (tmp_path / "all_figures").iterdir()} == {
        "side_by_side.png",
        "side_by_side.svg",
        "cost_accuracy.png",
        "cost_accuracy.svg",
    }
    assert [run["name"] for run in facts["runs"]] == ["one", "two"]
    assert '<th scope="row">&lt;control&gt;</th>' in text
    assert "<control>" not in text, "names of learners are escaped"
    assert "must not be compared" not in text


def test_runs_measured_differently_share_no_axis(make_run: MakeRun) -> None:
    runs = [
        read_run(make_run({"rule": RULE}, name=name, folder=name, protocol=protocol))
        for name, protocol in (("a", "standard"), ("b", "paper"), ("c", "standard"))
    ]
    together = compare(runs)
    assert [panel.name for panel in together] == ["side_by_side_2", "cost_accuracy_2"]
    assert together[0].title.endswith("side by side: split-digits, 2 experiences, protocol standard")
    assert "EWC (a)" in together[0].summary
    assert "EWC (b)" not in together[0].summary
    assert "were not measured in the same way" in page(runs, [([], [])] * 3, [])


def test_first_and_last_weights_are_those_of_the_run(spiking_run: Path) -> None:
    run = read_run(spiking_run)
    weights = first_and_last(run, "rule")
    assert weights is not None
    kept = load_tensors(spiking_run / "model.safetensors")
    for name, (before, after) in weights.items():
        assert torch.equal(after, kept[f"{name}.weight"])
        assert not torch.equal(before, after)
    assert run.learners["rule"].gap is not None
    assert [len(records) for records in run.learners["rule"].changes()] == [5, 5]


@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda run: (run / "metrics.json").unlink(), "metrics.json is missing"),
        (lambda run: (run / "rule/seed-1/metrics.json").unlink(), "continue it with lit-meta run --resume"),
        (lambda run: (run / "metrics.json").write_text("{"), "not a readable run folder"),
        (lambda run: (run / "metrics.json").write_text("{}"), "lists no learner"),
        (lambda run: (run / "rule/seed-0/metrics.json").write_text('{"cost": {}}'), "is not the result"),
        (lambda run: (run / "config.yaml").write_text("color: red"), "not a readable run folder"),
    ),
)
def test_folders_that_hold_no_finished_run(
    make_run: MakeRun, spoil: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run({"rule": RULE})
    spoil(folder)  # type: ignore[operator]
    assert main(["report", str(folder)]) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_the_command(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run({"rule": RULE})
    assert main(["report", str(folder), "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert Path(facts["page"]) == folder / "report.html"
    assert facts["runs"][0]["accuracy"]["rule"]["mean"] == pytest.approx(0.6)
    assert "60.0 [35.2, 84.8]" in capsys.readouterr().out
    assert main(["report", str(folder), str(folder)]) == 1
    assert "given twice" in capsys.readouterr().err


def test_energy_has_a_panel_where_every_learner_counted_it(make_run: MakeRun) -> None:
    counted = read_run(make_run({"rule": RULE, "joint": JOINT}, folder="a", cost={"energy_joules": 0.004}))
    not_counted = read_run(make_run({"rule": RULE}, folder="b"))
    panels = [axes.get_xlabel() for axes in cost_panel([counted]).figure.axes]
    assert panels[3] == "energy (mJ)"
    assert len(cost_panel([counted, not_counted]).figure.axes) == 3


def test_a_run_records_what_it_is_asked_for(tmp_path: Path) -> None:
    config = {
        "name": "tiny",
        "scenario": {"name": "split-digits", "experiences": 2},
        "network": {"name": "mlp", "inputs": 64, "hidden": [6], "classes": 10},
        "rule": {"name": "ewc"},
        "seeds": [0],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    run_dir = tmp_path / "run"
    flags = ["--record_weight_change", "--evaluate_every", "1"]
    assert main(["run", str(tmp_path / "tiny.yaml"), "--run_dir", str(run_dir), "--accelerator", "cpu", *flags]) == 0
    run = read_run(run_dir)
    assert " ".join(flags[:2]) in run.metrics["command"]
    for learner in run.streams.values():
        assert learner.gap is not None
        assert [len(records) for records in learner.changes()] == [2]
    assert not list((run_dir / "joint").rglob("weight_change.json"))
    for learner in run.learners.values():
        assert learner.cost("energy_joules") > 0
    panels, left_out = run_panels(run)
    assert {"synapses_changed", "weight_change", "cost_accuracy"} <= {panel.name for panel in panels}
    assert run.streams["rule"].seeds[0].classes == [sorted(classes) for classes in run.streams["rule"].seeds[0].classes]
    assert [text.split(":")[0] for text in left_out] == ["Forgetting by class", "Spike raster"]


def test_series_differ_in_more_than_colour() -> None:
    learners = ["rule", "control a", "control b", "naive", "joint"]
    styles = [learner_series(name, learners) for name in learners]
    for styles_of in (styles, [run_series(i) for i in range(6)]):
        for part in ("color", "marker", "line"):
            assert len({getattr(style, part) for style in styles_of}) == len(styles_of)


def test_colours_stand_out_from_the_paper() -> None:
    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for scheme in (0, 1):  # WCAG 2: 4.5 for text, 3 for parts of graphics
        paper = COLORS["paper"][scheme]
        assert contrast(COLORS["ink"][scheme], paper) > 7
        assert contrast(COLORS["faint"][scheme], paper) > 4.5
        for name in ("blue", "vermillion", "green"):
            assert contrast(COLORS[name][scheme], paper) > 3


def test_accuracy_by_batching_is_shown_where_it_was_measured(make_run: MakeRun) -> None:
    folder = make_run({"rule": RULE, "naive": NAIVE})
    assert batching_table(read_run(folder)) == ""
    metrics = json.loads((folder / "metrics.json").read_text())
    ways = {"one experience a batch": [0.9, 0.8, 0.7], "shuffled": [0.1, 0.1, 0.1]}
    metrics["rule"]["accuracy_by_batching"] = {way: {"values": values} for way, values in ways.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = batching_table(read_run(folder))
    assert '<th scope="col">one experience a batch (%)</th><th scope="col">shuffled (%)</th>' in text
    assert '<th scope="row">EWC</th><td data-column="one experience a batch (%)">80.0<span class="interval">' in text
    assert "naive" not in text, "only learners that were tested so"
    assert text in page([read_run(folder)], [([], [])], [])
    warned = [sentence for sentence in summary(read_run(folder)) if "batches are made" in sentence]
    assert len(warned) == 1
    assert "80.0 % with one experience a batch, 10.0 % with shuffled" in warned[0]
    metrics["rule"]["accuracy_by_batching"]["shuffled"]["values"] = [0.9, 0.8, 0.703]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert not any("batches are made" in sentence for sentence in summary(read_run(folder)))


def test_controls_are_named_in_the_summary(make_run: MakeRun) -> None:
    sentences = summary(read_run(make_run({"rule": RULE, "plasticity-off": NAIVE, "naive": NAIVE})))
    assert sentences[2] == "Controls on the same stream end at: plasticity-off 50.0 [50.0, 50.0] %."


def test_a_baseline_that_never_learned_is_said_to_be_one(make_run: MakeRun) -> None:
    learned, stuck = [[0.95, 0.0], [0.1, 0.9]], [[0.5, 0.0], [0.5, 0.0]]
    run = read_run(make_run({"rule": [learned] * 2, "naive": [stuck] * 2}, folder="stuck"))
    assert not run.learners["rule"].learned_little
    assert run.learners["naive"].learned_little
    table = results_table([run])
    assert "never learned" in table
    assert "2 of 2 at chance" in table
    assert "2 of 2 experiences were never learned" in " ".join(summary(run))
    both = read_run(make_run({"rule": [learned], "naive": [learned]}, folder="both"))
    assert "never learned" not in results_table([both]) + " ".join(summary(both))


def test_lines_on_each_other_are_named(make_run: MakeRun) -> None:
    same, other = [[1.0, 0.0], [0.504, 1.0]], [[1.0, 0.0], [0.5, 1.0]]
    caption = run_panels(read_run(make_run({"rule": [same], "naive": [other]})))[0][0].caption
    assert "EWC and no rule (naive fine-tuning) lie on each other: they differ by at most 0.2 points." in caption


def test_on_a_narrow_page_panels_are_below_each_other(make_run: MakeRun) -> None:
    matrix = [[1.0, 0.0], [0.5, 1.0]]
    panels = {p.name: p for p in run_panels(read_run(make_run({"rule": [matrix], "naive": [matrix]})))[0]}
    for name in ("forgetting", "cost_accuracy"):
        places = [axes.get_position().x0 for axes in panels[name].figure.axes]
        below = [axes.get_position() for axes in panels[name].narrow().axes]
        assert len(set(places)) == len(places)
        assert len({round(box.x0, 6) for box in below}) == 1
        assert [box.y0 for box in below] == sorted((box.y0 for box in below), reverse=True)


def test_a_raster_builds_its_network_once(spiking_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, built = networks.build_network, []
    monkeypatch.setattr(
        networks, "build_network", lambda *args, **options: built.append(args) or build(*args, **options)
    )
    assert isinstance(raster(read_run(spiking_run)), Panel)
    assert len(built) == 1


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder read-only, also for root."""

    def make(folder: Path) -> None:
        access = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: not Path(path).is_relative_to(folder) and access(path, mode)
        )

    return make


def test_a_run_that_is_read_only_is_reported_elsewhere(
    make_run: MakeRun, read_only: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run({"rule": RULE})
    before = sorted(folder.rglob("*"))
    read_only(folder)
    assert main(["report", str(folder)]) == 1
    assert "report.html cannot be written" in capsys.readouterr().err.replace("\n", "")
    facts = write_report([folder], file=tmp_path / "page.html")
    assert {Path(figure).parent for figure in facts["figures"]} == {tmp_path / "page_figures" / "1_run"}
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda file: file.write_bytes(file.read_bytes()[:100]), "is not a whole safetensors file"),
        (lambda file: save_tensors(file, {"other": torch.zeros(2)}), "weights of another network than config.yaml"),
        (lambda file: file.unlink(), "there is no file"),
    ),
)
def test_damaged_weights_are_a_reason_and_leave_the_other_figures(
    spiking_run: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(spiking_run, tmp_path / "run"))
    spoil(folder / "model.safetensors")
    facts = write_report([folder])
    (reason,) = [text for text in facts["runs"][0]["left_out"] if text.startswith("Spike raster")]
    assert message in reason
    assert len(facts["figures"]) > 4
    assert main(["retention", str(folder), str(folder)]) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")

"""Figures of accuracy along a stream say what the committed results say."""

from __future__ import annotations

import json

import pytest
import torch

from lit_meta import along
from lit_meta.cli import main


@pytest.fixture
def folder(tmp_path):
    report = {
        "rule": {"accuracy_matrix": [[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.5, 0.7, 0.9]]},
        "joint": {"accuracy_matrix": [[0.9, 1.0, 0.8]]},
    }
    (tmp_path / "one.json").write_text(json.dumps(report))
    return tmp_path


def test_a_line_is_the_average_over_what_was_seen(folder):
    torch.testing.assert_close(along.read(folder, "one"), torch.tensor([1.0, 0.7, 0.7]))
    torch.testing.assert_close(along.read(folder, "one/joint"), torch.tensor([0.9]))


def test_the_figure_draws_streams_as_lines_and_the_bound_across(folder):
    made = along.figure({"ours": along.read(folder, "one"), "joint": along.read(folder, "one/joint")})
    lines = {line.get_label(): line for line in made.axes[0].get_lines()}
    assert lines["ours"].get_ydata() == pytest.approx([100.0, 70.0, 70.0])
    assert list(lines["joint"].get_ydata()) == pytest.approx([90.0, 90.0])


def test_the_command_writes_a_figure_and_its_facts(folder, tmp_path):
    figure, facts = tmp_path / "deep" / "figure.png", tmp_path / "facts.json"
    assert (
        main(["along", str(figure), "ours=one", "joint=one/joint", "--folder", str(folder), "--json", str(facts)]) == 0
    )
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert json.loads(facts.read_text()) == {"ours": pytest.approx([1.0, 0.7, 0.7]), "joint": pytest.approx([0.9])}


@pytest.mark.parametrize(
    ("lines", "message"),
    (
        (["one"], "LABEL=NAME"),
        (["ours=two"], "lit-meta run two"),
        (["ours=one/naive"], "no learner 'naive'"),
        (["joint=one/joint"], "same number of experiences"),
    ),
)
def test_bad_lines_are_refused_in_one_line(lines, message, folder, tmp_path, capsys):
    assert main(["along", str(tmp_path / "figure.png"), *lines, "--folder", str(folder)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "figure.png").exists()

"""Figures of accuracy along a stream say what the committed results say."""

from __future__ import annotations

import json

import pytest
import torch

from docs.tables import along


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


def test_a_line_may_be_of_the_last_experiences_alone(folder):
    torch.testing.assert_close(along.read(folder, "one", last=2), torch.tensor([1.0, 0.7, 0.8]))
    torch.testing.assert_close(along.read(folder, "one", last=3), along.read(folder, "one"))


def test_the_figure_draws_streams_as_lines_and_the_bound_across(folder):
    made = along.figure({"ours": along.read(folder, "one"), "joint": along.read(folder, "one/joint")})
    lines = {line.get_label(): line for line in made.axes[0].get_lines()}
    assert lines["ours"].get_ydata() == pytest.approx([100.0, 70.0, 70.0])
    assert list(lines["joint"].get_ydata()) == pytest.approx([90.0, 90.0])


def test_the_script_draws_the_figure_of_the_committed_results(tmp_path):
    along.main(tmp_path)
    for name in along.FIGURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_named(folder):
    with pytest.raises(FileNotFoundError, match="lit-meta run two"):
        along.read(folder, "two")
    with pytest.raises(ValueError, match="no learner 'naive'"):
        along.read(folder, "one/naive")
    with pytest.raises(ValueError, match="same number of experiences"):
        along.figure({"joint": along.read(folder, "one/joint")})

"""What a result looks like: a line, a table of a notebook, a picture, a data frame."""

from __future__ import annotations

from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
import torch

from lit_meta import EWC, SI, Metaplasticity, StreamResult
from lit_meta.metrics import AccuracyMatrix, Forgetting

MATRIX = torch.tensor([[1.0, 0.25], [0.5, 0.75]])


def result(**changes: object) -> StreamResult:
    return StreamResult(
        **{
            "scenario": "split-<toys>",
            "protocol": "standard",
            "accuracy_matrix": MATRIX,
            "initial": torch.full((2,), 0.1),
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def test_it_prints_as_one_line() -> None:
    assert (
        repr(result()) == "StreamResult(split-<toys>, 2 experiences: average accuracy 62.5 %, forgetting 50.0 points)"
    )
    alone = result(accuracy_matrix=MATRIX[:1, :1], initial=torch.zeros(1), protocol="paper")
    assert repr(alone) == "StreamResult(split-<toys>, protocol paper, 1 experience: average accuracy 100.0 %)"


def test_a_notebook_shows_the_matrix_and_escapes_what_it_is_given() -> None:
    cells: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            cells.append(data)

    shown = result(classes=[[0, 1], [2, 3]])._repr_html_()
    Reader().feed(shown)
    assert cells[0] == repr(result())
    assert cells[1:] == ["accuracy (%)", "1", "2", "after 1", "100.0", "25.0", "after 2", "50.0", "75.0"]
    assert 'title="classes 2, 3"' in shown


def test_it_is_drawn_as_torchmetrics_draws() -> None:
    figure, ax = result().plot()
    assert [text.get_text() for text in ax.texts] == ["100", "25", "50", "75"]
    assert ax.images[0].get_array().tolist() == MATRIX.tolist()
    assert "split-<toys>" in ax.get_title()
    assert ax.images[0].get_cmap().name == "cividis"
    _, other = plt.subplots()
    again, used = result().plot(ax=other)
    assert used is other
    assert again is other.get_figure()
    assert again is not figure


def test_a_data_frame_begins_before_learning() -> None:
    pytest.importorskip("pandas")
    frame = result().to_pandas()
    assert frame.index.tolist() == [0, 1, 2]
    assert (frame.index.name, frame.columns.name, frame.columns.tolist()) == ("after", "experience", [1, 2])
    assert frame.loc[2].tolist() == [0.5, 0.75]
    assert frame.loc[0].tolist() == pytest.approx([0.1, 0.1])


def test_metrics_look_the_same() -> None:
    metric, forgotten = AccuracyMatrix(2), Forgetting(2)
    for of_metric in (metric, forgotten):
        for row, column, right in ((0, 0, 4), (0, 1, 1), (1, 0, 2), (1, 1, 3)):
            of_metric.update(
                row, column, torch.tensor([1] * right + [0] * (4 - right)), torch.ones(4, dtype=torch.long)
            )
    assert repr(metric) == "AccuracyMatrix(experiences=2, test_experiences=2)"
    assert "<td>75.0</td>" in metric._repr_html_()
    _, ax = metric.plot()
    assert ax.images[0].get_array().tolist() == MATRIX.tolist()
    _, ax = forgotten.plot()
    assert ax.lines[0].get_ydata().tolist() == [0.5]
    _, ax = forgotten.plot([torch.tensor(0.1), torch.tensor(0.2)])
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2])
    pytest.importorskip("pandas")
    assert metric.to_pandas().loc[1].tolist() == [1.0, 0.25]
    assert metric.to_pandas().loc[0].isna().all()


def test_a_callback_says_its_rules() -> None:
    assert repr(Metaplasticity(SI())) == f"Metaplasticity({SI()!r})"
    both = Metaplasticity([SI(), EWC(strength=2.0)], network="model")
    assert repr(both) == f"Metaplasticity([{SI()!r}, {EWC(strength=2.0)!r}], network='model')"

"""Omniglot: area averaging, pen strokes as events, drawings made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lit_meta.data import load_source
from lit_meta.data.readers.strokes import read_strokes
from lit_meta.data.sources.omniglot import area_weights, stroke_frames

needs_data = pytest.mark.skipif(
    "LIT_META_DATA" not in os.environ, reason="the data sets are not here: LIT_META_DATA is not set"
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_area_weights_keep_the_mean_and_the_total(sizes: tuple[int, int]) -> None:
    source, target = sizes
    weights = area_weights(source, target).double()
    torch.testing.assert_close(weights.sum(1), torch.ones(target).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.sum(0), torch.full((source,), target / source).double(), atol=1e-5, rtol=0)


def test_area_averaging_agrees_with_pillow_where_the_sizes_divide() -> None:
    image = np.random.default_rng(0).random((105, 105)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((35, 35), Image.Resampling.BOX))
    weights = area_weights(105, 35).numpy()
    np.testing.assert_allclose(weights @ image @ weights.T, expected, atol=1e-5)


@pytest.mark.parametrize("target", (28, 17, 104))
def test_area_averaging_agrees_with_block_means_of_a_common_multiple(target: int) -> None:
    line = torch.rand(105, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = line.repeat_interleave(target).reshape(target, 105).mean(1)
    torch.testing.assert_close(area_weights(105, target).double() @ line, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", (0, 4))
def test_area_weights_only_make_smaller(target: int) -> None:
    with pytest.raises(ValueError, match="1 <= target <= source"):
        area_weights(3, target)


def test_strokes_are_read_with_y_downwards(tmp_path: Path) -> None:
    file = tmp_path / "0001_01.txt"
    file.write_text("START\n10.5,-20.25,0\n11.5,-20.25,8\nBREAK\n30,-40,500\nBREAK\n")
    first, second = read_strokes(file)
    assert first.tolist() == [[10.5, 20.25, 0.0], [11.5, 20.25, 8.0]]
    assert second.tolist() == [[30.0, 40.0, 500.0]]


@pytest.mark.parametrize(
    ("text", "message"), (("START\n1,2\nBREAK", "expected x,y,t"), ("START\nBREAK", "at least one"))
)
def test_damaged_strokes_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_strokes(tmp_path / "a.txt")


def test_pauses_take_no_time() -> None:
    # Two strokes of 100 ms each, a row of cells each, with a pause of 10 s between. The end of the
    # first stroke and the beginning of the second are the same moment, and belong to the same frame.
    top = np.array([[0.0, 10.0, 0.0], [50.0, 10.0, 100.0]])
    bottom = np.array([[0.0, 100.0, 10_100.0], [50.0, 100.0, 10_200.0]])
    frames = stroke_frames([top, bottom], frames=4, size=28)
    rows = [sorted(set(frame[0].nonzero()[:, 0].tolist())) for frame in frames]
    assert rows == [[2], [2], [2, 26], [26]]


def test_a_fast_pen_leaves_no_gaps_and_no_events_beyond_its_path() -> None:
    line = np.array([[0.0, 0.0, 0.0], [104.9, 104.9, 1.0]])
    seen = stroke_frames([line], frames=5)[:, 0].amax(0)
    assert torch.equal(seen, torch.eye(28))


def test_a_dot_is_one_event_in_the_first_frame() -> None:
    frames = stroke_frames([np.array([[52.0, 31.0, 7.0]])])
    assert frames.nonzero().tolist() == [[0, 0, 8, 13]]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 104), st.floats(0, 104), st.floats(0, 50)), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_events_are_binary_and_every_recorded_point_is_one(
    strokes: list[list[tuple[float, float, float]]],
) -> None:
    arrays = []
    for stroke in strokes:
        array = np.asarray(stroke, dtype=float)
        array[:, 2] = array[:, 2].cumsum()
        arrays.append(array)
    frames = stroke_frames(arrays, frames=6, size=28)
    assert frames.shape == (6, 1, 28, 28)
    assert set(frames.unique().tolist()) <= {0.0, 1.0}
    seen = frames[:, 0].amax(0)
    for x, y, _ in np.concatenate(arrays):
        assert seen[int(y * 28 / 105), int(x * 28 / 105)] == 1


def test_images_have_ink_one_and_the_last_five_drawers_for_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for character in range(1, 25):
        folder = tmp_path / "omniglot" / "images" / "Greek" / f"character{character:02d}"
        folder.mkdir(parents=True)
        for drawer in (1, 15, 16, 20):
            image = Image.new("1", (105, 105), 1)
            image.paste(0, (0, 0, 4 * character, 15))  # ink in a corner, wider for every character
            image.save(folder / f"{character:04d}_{drawer:02d}.png")
    source = load_source("omniglot-greek", root=tmp_path)
    assert source.train_y.tolist() == source.test_y.tolist() == [c for c in range(24) for _ in range(2)]
    ink = source.train_x[::2, 0].mean((1, 2))
    torch.testing.assert_close(ink, torch.arange(1, 25) * 4 * 15 / 105**2)
    assert source.train_x[0, 0, 0, 0] == pytest.approx(1)
    assert source.classes[-1] == "omega"

    (tmp_path / "omniglot" / "images" / "Greek" / "character24").rename(tmp_path / "character24")
    from lit_meta.data.sources import registry

    registry._load.cache_clear()
    with pytest.raises(ValueError, match="expected the folders character01 to character24"):
        load_source("omniglot-greek", root=tmp_path)


@needs_data
def test_the_pen_goes_where_the_ink_is() -> None:
    images, strokes = load_source("omniglot-latin"), load_source("strokes-latin")
    assert torch.equal(images.train_y, strokes.train_y)
    path = strokes.train_x.amax(1)
    on_ink = (path * (images.train_x > 0)).sum() / path.sum()
    assert on_ink > 0.9  # the strokes are drawn 1 to 3 pixels thick; cells are 3.75 pixels wide
    assert strokes.train_x.sum((2, 3, 4)).gt(0).float().mean() > 0.8  # most frames have an event

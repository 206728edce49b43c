"""Facts about every data source, and the errors where one is not there."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_meta.data import data_root, load_source
from lit_meta.data.readers.idx import read_idx
from lit_meta.data.sources.base import stratified_split

needs_data = pytest.mark.skipif(
    "LIT_META_DATA" not in os.environ, reason="the data sets are not here: LIT_META_DATA is not set"
)

# name: shape of a sample, training samples, test samples, classes
FACTS = {
    "digits": ((1, 8, 8), 1438, 359, 10),
    "mnist": ((1, 28, 28), 60_000, 10_000, 10),
    "fsdd": ((1, 30, 30), 2_700, 300, 10),
    "omniglot-latin": ((1, 28, 28), 390, 130, 26),
    "omniglot-greek": ((1, 28, 28), 360, 120, 24),
    "strokes-latin": ((20, 1, 28, 28), 390, 130, 26),
}


def marked(name: str) -> object:
    return name if name == "digits" else pytest.param(name, marks=needs_data)


@pytest.mark.parametrize("name", [marked(name) for name in FACTS])
def test_every_source_has_the_shapes_and_counts_of_its_publication(name: str) -> None:
    source = load_source(name)
    shape, train, test, classes = FACTS[name]
    assert source.name == name
    assert source.input_shape == shape
    assert source.train_x.shape == (train, *shape)
    assert source.test_x.shape == (test, *shape)
    assert len(source.classes) == len(set(source.classes)) == classes
    for x, y in ((source.train_x, source.train_y), (source.test_x, source.test_y)):
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.min() == 0
        assert x.max() == 1
        assert y.unique().tolist() == list(range(classes))


@pytest.mark.parametrize(
    ("name", "train", "test"),
    (("fsdd", 270, 30), ("omniglot-latin", 15, 5), ("omniglot-greek", 15, 5), ("strokes-latin", 15, 5)),
)
@needs_data
def test_sources_that_are_balanced_by_design_are_balanced(name: str, train: int, test: int) -> None:
    source = load_source(name)
    assert source.train_y.bincount().unique().tolist() == [train]
    assert source.test_y.bincount().unique().tolist() == [test]


@needs_data
def test_mnist_has_the_published_class_counts_and_the_first_labels() -> None:
    source = load_source("mnist")
    assert source.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert source.test_y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert source.train_y[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    # The mean brightness that every tutorial normalises by.
    assert source.train_x.mean().item() == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.skipif(
    not (Path(os.environ.get("LIT_META_DATA", "")) / "cifar10.npz").is_file(),
    reason="no cifar10.npz under LIT_META_DATA",
)
def test_cifar10_never_trains_on_its_held_out_images() -> None:
    from lit_meta.data.sources import registry

    try:
        source = load_source("cifar10")
        with np.load(data_root() / "cifar10.npz") as arrays:
            labels, test_labels, last = arrays["y_train"], arrays["y_test"], arrays["x_train"][-1]
        assert source.train_x.shape == (45_000, 3, 32, 32)
        assert source.test_x.shape == (6_000, 3, 32, 32)
        assert source.train_y.tolist() == labels[:45_000].tolist()
        assert source.test_y.tolist() == [*test_labels[:1_000].tolist(), *labels[45_000:].tolist()]
        assert source.held_out_x is not None
        assert source.held_out_y is not None
        assert source.held_out_x.shape == (5_000, 3, 32, 32)
        assert source.held_out_y.tolist() == labels[45_000:].tolist()
        expected = torch.from_numpy(last).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(source.held_out_x[-1], expected, rtol=0, atol=0)
        torch.testing.assert_close(source.test_x[-1], expected, rtol=0, atol=0)
    finally:
        registry._load.cache_clear()  # 600 MB that no other test needs


def test_digits_are_split_by_class_and_hold_every_image_once() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    source = load_source("digits")
    both = torch.cat([source.train_x, source.test_x]).flatten(1) * 16
    order = np.lexsort(both.numpy().T)
    reference = np.lexsort(images.T)
    np.testing.assert_array_equal(both.numpy()[order], images[reference])
    part = source.test_y.bincount() / torch.bincount(torch.from_numpy(labels))
    assert part.sub(0.2).abs().max() < 0.004  # at most half a sample from a fifth


def test_the_digits_split_never_changes() -> None:
    source = load_source("digits")
    assert source.test_y[:12].tolist() == [0, 1, 9, 3, 0, 8, 4, 7, 2, 2, 8, 1]
    assert source.test_y.sum() == 1_613
    assert source.train_y[:12].tolist() == [2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 4, 5]


def test_a_source_is_loaded_once_and_shared() -> None:
    assert load_source("digits").train_x is load_source("digits").train_x


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'mnist'"):
        load_source("mnits")


def test_the_data_root_is_the_environment_or_the_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIT_META_DATA", str(tmp_path / "here"))
    assert data_root() == tmp_path / "here"
    monkeypatch.delenv("LIT_META_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "lit_meta" / "data"


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_mnist_is_read_from_idx_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = random.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 10
    for part, n in (("train", 20), ("t10k", 10)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images[:n]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels[:n]))
    source = load_source("mnist", root=tmp_path)
    np.testing.assert_array_equal((source.train_x[:, 0] * 255).round().numpy().astype(np.uint8), images)
    assert source.test_y.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"\x1f\x8b\x08\x00rest", "not an uncompressed IDX file"),
        (b"", "not an uncompressed IDX file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"is damaged: its header says \(2, 3\).*but 5 follow"),
    ),
)
def test_a_damaged_idx_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "file")


def test_cifar10_archives_of_another_shape_are_refused(tmp_path: Path) -> None:
    x, y = np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(ValueError, match=r"expected CIFAR-10 arrays of \(50000, 32, 32, 3\)"):
        load_source("cifar10", root=tmp_path)


def test_a_stratified_split_is_disjoint_complete_and_repeatable() -> None:
    y = torch.randint(0, 5, (1_000,), generator=torch.Generator().manual_seed(3))
    first, second = stratified_split(y, 0.3, torch.Generator().manual_seed(0))
    assert torch.cat([first, second]).sort().values.tolist() == list(range(1_000))
    assert y[second].bincount().tolist() == [round(0.3 * n) for n in y.bincount().tolist()]
    again, _ = stratified_split(y, 0.3, torch.Generator().manual_seed(0))
    other, _ = stratified_split(y, 0.3, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("fraction", (0.0, 1.0, -0.1, 0.01))
def test_a_split_that_leaves_a_class_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        stratified_split(torch.tensor([0, 0, 1, 1]), fraction, torch.Generator())

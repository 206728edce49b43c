"""Data of one's own: every kind by name and from Python, transforms, and bad data in one sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_meta.data import from_dataset, from_frame, from_tensors, load_source, scenario, tensor_benchmark
from lit_meta.data.lazy_samples import LazySamples
from lit_meta.data.readers.image import read_image
from lit_meta.data.registry import scenario_names, scenario_spec
from lit_meta.data.sources import registry

RANDOM = np.random.default_rng(0)


def folder_of(root: Path, classes: dict[str, int], shape: tuple[int, ...] = (6, 5, 3)) -> Path:
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full(shape, 40 * label + i, np.uint8)).save(root / name / f"{i}.png")
    return root


def test_an_image_folder_is_split_by_class_and_ordered_by_name(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets", {"dog": 10, "cat": 5})
    source = load_source(f"folder:{root}")
    assert (source.name, source.classes, source.input_shape) == ("pets", ("cat", "dog"), (3, 6, 5))
    assert (source.train_y.bincount().tolist(), source.test_y.bincount().tolist()) == ([4, 8], [1, 2])
    # Dogs were written first, with the values 0 to 9; every image is in one part, once.
    both = torch.cat([source.train_x, source.test_x])[:, 0, 0, 0] * 255
    assert sorted(both.round().int().tolist()) == sorted([*range(10), *range(40, 45)])
    again = load_source({"name": "folder", "path": str(root)})
    assert torch.equal(again.test_x, source.test_x)


def test_folders_for_training_and_testing_are_taken_as_they_are(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"a": 3, "b": 2})
    folder_of(tmp_path / "val", {"a": 1, "b": 1})
    source = load_source(f"folder:{tmp_path}", size=4, channels=1)
    assert source.train_y.tolist() == [0, 0, 0, 1, 1]
    assert source.train_x.shape == (5, 1, 4, 4)
    folder_of(tmp_path / "val", {"c": 1})
    registry._load.cache_clear()
    with pytest.raises(ValueError, match=r"val: its classes are not those of .*train: c"):
        load_source(f"folder:{tmp_path}", size=4, channels=1)


@pytest.mark.parametrize(
    ("break_it", "message"),
    (
        (lambda root: (root / "b" / "0.png").write_bytes(b"no image"), r"b.0\.png cannot be read as an image"),
        (
            lambda root: (root / "b" / "0.png").write_bytes((root / "b" / "1.png").read_bytes()[:50]),
            r"b.0\.png cannot be read",
        ),
        (
            lambda root: Image.new("RGB", (9, 9)).save(root / "b" / "3.png"),
            r"b.3\.png has the shape \(3, 9, 9\).*give size=",
        ),
        (lambda root: [file.unlink() for file in (root / "b").iterdir()], "b holds no images"),
        (lambda root: [(root / "b" / f"{i}.png").unlink() for i in range(1, 5)], "of the 1 samples of class 'b'"),
    ),
)
def test_a_bad_image_or_class_is_named(break_it, message: str, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "mine", {"a": 5, "b": 5})
    break_it(root)
    with pytest.raises(ValueError, match=message):
        load_source(f"folder:{root}")


def test_pictures_are_read_as_a_viewer_shows_them(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for channels in (1, 3):
        values = read_image(tmp_path / "deep.png", channels=channels)
        torch.testing.assert_close(values, torch.from_numpy(deep / 65535).float().expand(channels, 8, 8))
    assert read_image(tmp_path / "deep.png", channels=1, size=(4, 4)).shape == (1, 4, 4)
    ink = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (2, 2, 5, 5))
    exif = Image.Exif()
    exif[0x0112] = 3
    ink.save(tmp_path / "ink.png", exif=exif)
    values = read_image(tmp_path / "ink.png", channels=1)[0]
    assert (float(values[0, 0]), float(values[5, 5]), float(values[2, 2])) == (1.0, 0.0, 1.0)
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif cannot be read as an image .*32 bits .*'F'"):
        read_image(tmp_path / "float.tif")


def test_a_folder_train_alone_is_split_and_test_alone_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "one" / "train", {"a": 5, "b": 5})
    source = load_source(f"folder:{tmp_path / 'one'}")
    assert (source.name, source.classes) == ("one", ("a", "b"))
    folder_of(tmp_path / "other" / "test", {"a": 5, "b": 5})
    with pytest.raises(ValueError, match="has a folder test and none named train"):
        load_source(f"folder:{tmp_path / 'other'}")


@pytest.mark.parametrize("kind", ("folder", "npz", "csv"))
def test_a_path_that_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no (folder|file) .*nowhere: give the path"):
        load_source(f"{kind}:{tmp_path / 'nowhere'}")


def arrays(**changes: object) -> dict[str, object]:
    x, y = RANDOM.integers(0, 256, (10, 4, 4), dtype=np.uint8), np.arange(10) % 2
    both = {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4], **changes}
    return {name: value for name, value in both.items() if value is not None}


def test_an_npz_file_in_bytes_and_its_names(tmp_path: Path) -> None:
    given = arrays(classes=np.array(["even", "odd"]))
    np.savez(tmp_path / "mine.npz", **given)
    source = load_source(f"npz:{tmp_path / 'mine.npz'}")
    assert (source.name, source.classes, source.train_x.shape) == ("mine", ("even", "odd"), (10, 1, 4, 4))
    assert torch.equal((source.train_x[:, 0] * 255).round().int(), torch.from_numpy(given["x_train"]).int())
    # What has changed on the disk is read anew.
    np.savez(
        tmp_path / "mine.npz", **arrays(x_train=np.ones((10, 4, 4), np.float32), x_test=np.ones((4, 4, 4), np.float32))
    )
    assert load_source(f"npz:{tmp_path / 'mine.npz'}").train_x.mean() == 1


def test_channels_that_come_last(tmp_path: Path) -> None:
    x = RANDOM.random((10, 4, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=np.arange(10) % 2)
    source = load_source({"name": "npz", "path": str(tmp_path / "mine.npz"), "channels_last": True, "test": 0.4})
    assert (source.input_shape, len(source.test_y)) == ((3, 4, 5), 4)


NAN = np.full((10, 4, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"x_train": None}, "lacks x_train"),
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": NAN, "x_test": None, "y_test": None}, "x_train: sample 0 holds NaN"),
        (
            {"x_test": np.zeros((4, 5, 5), np.uint8)},
            r"training samples have the shape \(1, 4, 4\), test samples \(1, 5, 5\)",
        ),
        ({"y_train": np.arange(9) % 2}, r"y_train: expected one label for each of 10 samples, got the shape \(9,\)"),
        ({"y_train": np.linspace(0, 1, 10)}, "y_train: expected labels as whole numbers"),
        ({"y_train": np.arange(10) % 2 - 1}, "y_train: expected labels from 0, got -1"),
        ({"y_train": np.arange(10) % 2 * 2}, "class 1 has no training samples"),
        ({"y_test": np.array([0, 0, 0, 3])}, "class 2 has no training samples|class 1 has no"),
        ({"classes": np.array(["only"])}, "labels below 1, the number of classes, got 1"),
        ({"x_train": np.array(["text"] * 10)}, "x_train: expected numbers"),
        ({"x_train": np.array([{}] * 10)}, "cannot be read as an .npz file of plain arrays"),
    ),
)
def test_bad_arrays_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_source(f"npz:{tmp_path / 'mine.npz'}")
    assert "mine.npz" in str(caught.value)


@pytest.mark.parametrize("content", (b"", b"no archive", b"PK\x03\x04 cut off"))
def test_a_damaged_npz_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read as an \.npz file"):
        load_source(f"npz:{tmp_path / 'mine.npz'}")


def test_tensors_from_python() -> None:
    x = torch.rand(20, 3)
    source = from_tensors(x, torch.arange(20) % 4, name="mine")
    assert (source.name, len(source.train_y), len(source.test_y), source.classes) == (
        "mine",
        16,
        4,
        ("0", "1", "2", "3"),
    )
    whole = from_tensors(x, torch.arange(20) % 4, x[:4], torch.arange(4))
    assert torch.equal(whole.train_x, x)
    with pytest.raises(ValueError, match="x_test and y_test go together"):
        from_tensors(x, torch.arange(20), x)
    for names, message in (
        (("a", "b", "a", "c"), "'a' is the name of two classes, 0 and 2"),
        (("a", " ", "b", "c"), "class 1 has an empty name"),
        ("abcd", "must be a list of names as text"),
        (range(4), "must be a list of names as text"),
    ):
        with pytest.raises(ValueError, match=message):
            from_tensors(x, torch.arange(20) % 4, classes=names)
        with pytest.raises(ValueError, match=message):
            tensor_benchmark([(x, torch.arange(20) % 4)], [(x, torch.arange(20) % 4)], class_names=names)
    benchmark = scenario("split", source=whole, experiences=2)
    assert benchmark.classes == 4


IN_BYTES = RANDOM.integers(0, 256, (10, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize("other", (np.int64, np.uint16, np.float32, torch.float64))
@pytest.mark.parametrize("swapped", (False, True))
def test_parts_that_would_be_scaled_differently_are_refused(other, swapped: bool, tmp_path: Path) -> None:
    y = np.arange(10) % 2
    wide = torch.from_numpy(IN_BYTES).to(other) if isinstance(other, torch.dtype) else IN_BYTES.astype(other)
    first, second = (wide, IN_BYTES) if swapped else (IN_BYTES, wide)
    with pytest.raises(ValueError, match=r"holds bytes, which are divided by 255, and .* numbers from"):
        from_tensors(first, y, second, y)
    np.savez(tmp_path / "mine.npz", x_train=np.asarray(first), y_train=y, x_test=np.asarray(second), y_test=y)
    with pytest.raises(ValueError, match=r"mine\.npz: .* holds bytes"):
        load_source(f"npz:{tmp_path / 'mine.npz'}")


def test_parts_of_two_types_and_one_scale_are_taken() -> None:
    y = np.arange(10) % 2
    for other in (IN_BYTES / 255, torch.from_numpy(IN_BYTES) / 255):
        source = from_tensors(IN_BYTES, y, other, y)
        torch.testing.assert_close(source.train_x, source.test_x)


def test_tables_from_files_and_from_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({f"p{i}": RANDOM.random(12) for i in range(4)})
    frame["kind"] = ["lily", "rose", "oak"] * 4
    frame["part"] = ["train"] * 9 + ["test"] * 3
    frame.to_csv(tmp_path / "plants.csv", index=False)
    spec = {"name": "csv", "path": str(tmp_path / "plants.csv"), "label": "kind", "split": "part", "shape": [1, 2, 2]}
    source = load_source(spec)
    assert (source.classes, source.input_shape, len(source.train_y), len(source.test_y)) == (
        ("lily", "oak", "rose"),
        (1, 2, 2),
        9,
        3,
    )
    assert source.test_y.tolist() == [0, 2, 1]
    torch.testing.assert_close(source.train_x[0].flatten(), torch.tensor(frame.iloc[0, :4].tolist()))
    direct = from_frame(frame, label="kind", split="part", shape=(1, 2, 2))
    torch.testing.assert_close(direct.train_x, source.train_x)
    numbers = frame.assign(kind=[2, 10, 9] * 4).drop(columns="part")
    assert from_frame(numbers, label="kind", test=0.5).classes == ("2", "9", "10")
    # Columns that pandas numbers, and classes whose names it takes for missing values.
    numbered = numbers.set_axis(range(5), axis=1)
    assert from_frame(numbered, label=4, test=0.5).input_shape == (4,)
    (tmp_path / "metals.csv").write_text("a,label\n" + "1,Na\n2,NA\n3,null\n" * 2)
    assert load_source({"name": "csv", "path": str(tmp_path / "metals.csv"), "test": 0.5}).classes == (
        "NA",
        "Na",
        "null",
    )


@pytest.mark.parametrize(
    ("text", "options", "message"),
    (
        ("a,b\n1,2\n", {}, "has no column 'label'"),
        ("a,lable\n1,2\n", {}, "did you mean 'lable'"),
        ("a,label\nx,1\ny,2\n", {}, "column 'a' does not hold numbers .'x' in row 1"),
        ("a,label\n1,1\nNA,2\n", {}, "column 'a' does not hold numbers .'NA' in row 2"),
        ("a,label\n1,1\n,1\n", {}, "row 2 has no value for 'a'"),
        ("a,label\n1,1\n2,\n", {}, "row 2 has no value for 'label'"),
        ("label,a,b\n1,1,1\n2,2\n", {}, "row 2 has no value for 'b'"),
        ("a,label\n1,1\n2,3,1\n", {}, r"Expected 2 fields in line 3, saw 3\)$"),
        ("a,label\n1,1,1\n2,3,1\n", {}, "its rows have more values than its header has columns, 2"),
        ("a,label\n", {}, r"mine\.csv has a header and no rows$"),
        (",a,label\n0,1,1\n1,2,1\n", {}, "a column has no name"),
        ("label,a,label\n0,1,1\n1,2,1\n", {}, "has two columns named 'label'"),
        ("a,label\n1,1\n1e300,1\n", {}, r"sample 1 holds NaN or infinity \(in float32\)"),
        ("a,label\n1,x\n2,x\n3,y\n", {}, "no test samples, and none can be split off: .* of class 'x' on"),
        ("a,s,label\n1,train,0\n2,later,0\n", {"split": "s"}, "must say train or test, got 'later'"),
        ("a,s,label\n1,train,0\n2,train,0\n", {"split": "s"}, "says train everywhere"),
        ("a,label\n1,0\n", {"shape": [2, 2]}, r"1 columns do not fill the shape \(2, 2\)"),
        ('a,label\n"1,0\n', {}, "cannot be read as CSV|does not hold"),
        ("", {}, "cannot be read as CSV"),
    ),
)
def test_bad_tables_are_named(text: str, options: dict, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_source({"name": "csv", "path": str(tmp_path / "mine.csv"), **options})
    assert "mine.csv" in str(caught.value)


def test_data_sets_of_hugging_face(tmp_path: Path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    pictures = [Image.fromarray(np.full((6, 5, 3), i, np.uint8)) for i in range(10)]
    train = datasets.Dataset.from_dict({"image": pictures, "label": [i % 2 for i in range(10)]}, features=features)
    both = datasets.DatasetDict({"train": train, "test": train.select(range(4))})
    both.save_to_disk(tmp_path / "pets")
    source = load_source(f"hf:{tmp_path / 'pets'}")
    assert (source.name, source.classes, source.input_shape) == ("pets", ("cat", "dog"), (3, 6, 5))
    assert (source.train_x[:, 0, 0, 0] * 255).round().tolist() == list(range(10))
    assert (len(source.test_y), source.test_y.tolist()) == (4, [0, 1, 0, 1])
    lazily = from_dataset(train, keep=False, channels=1, size=4)
    assert isinstance(lazily.train_x, LazySamples)
    assert lazily.train_x[0].shape == (1, 4, 4)
    numbers = datasets.Dataset.from_dict({"values": [[0.0, i] for i in range(10)], "class": ["a", "b"] * 5})
    assert from_dataset(numbers).classes == ("a", "b")
    for data, options, message in (
        (numbers, {"label": "klass"}, "has no column 'klass'; it has values, class"),
        (numbers.add_column("more", list(range(10))), {}, "give column="),
        (numbers.rename_column("class", "kind"), {}, "give label="),
        (datasets.DatasetDict({"test": numbers}), {}, "has no part train"),
        (
            datasets.DatasetDict(
                {
                    "train": train,
                    "test": train.cast_column("label", datasets.ClassLabel(names=["dog", "cat"])),
                }
            ),
            {},
            "column 'label' is .* in the part train and .*: cast them to one",
        ),
        (
            datasets.Dataset.from_dict({"values": [[1.0], [1.0, 2.0]], "label": [0, 1]}),
            {},
            "neither images nor numbers",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            from_dataset(data, **options)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing' cannot be loaded .*copy a folder"):
        load_source("hf:nobody/nothing")


def test_recordings_of_events(tmp_path: Path) -> None:
    kind = [("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)]
    events = np.array([(0, 1, 10, 0), (3, 2, 1010, 1)], dtype=kind)
    for name in ("up", "down"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(4):
            np.save(tmp_path / "mine" / name / f"{i}.npy", events)
        np.savez(tmp_path / "mine" / name / "4.npz", **{field: events[field] for field, _ in kind})
    spec = {"name": "events", "path": str(tmp_path / "mine"), "sensor": [4, 3, 2], "frames": 2}
    source = load_source(spec)
    assert (source.classes, source.input_shape) == (("down", "up"), (2, 2, 3, 4))
    assert all(x.nonzero().tolist() == [[0, 0, 1, 0], [1, 1, 2, 3]] for x in torch.cat([source.train_x, source.test_x]))
    registry._load.cache_clear()
    for content, message in (
        (np.array([(4, 0, 0, 0)], dtype=kind), "expected x from 0 to 3, got 4"),
        (np.zeros((3, 2)), "expected the fields x, y, t, p"),
        (np.array([{}]), "cannot be read as a NumPy file"),
    ):
        np.save(tmp_path / "mine" / "up" / "0.npy", content)
        with pytest.raises(ValueError, match=message) as caught:
            load_source(spec)
        assert "0.npy" in str(caught.value)
    with pytest.raises(ValueError, match=r"sensor must be \(columns, rows, polarities\)"):
        load_source({**spec, "sensor": [4, 3]})
    with pytest.raises(TypeError, match="needs the argument 'sensor'"):
        load_source(f"events:{tmp_path / 'mine'}")


def test_any_source_takes_a_transform_by_name_or_function(tmp_path: Path) -> None:
    digits = load_source("digits")
    resized = load_source("digits", transform={"name": "resize", "size": [4, 4]})
    assert resized.input_shape == (1, 4, 4)
    both = load_source(
        {"name": "digits", "transform": [{"name": "center-crop", "size": 6}, {"name": "pad", "padding": 1}]}
    )
    assert torch.equal(both.train_x[:, :, 1:7, 1:7], digits.train_x[:, :, 1:7, 1:7])
    assert both.train_x[:, :, 0].sum() == 0
    assert torch.equal(load_source(digits, transform=lambda x: 1 - x).test_x, 1 - digits.test_x)
    by_path = {"class_path": "torchvision.transforms.v2.Grayscale", "init_args": {"num_output_channels": 3}}
    assert load_source("digits", transform=by_path).input_shape == (3, 8, 8)
    root = folder_of(tmp_path / "mine", {"a": 5, "b": 5})
    lazily = load_source({"name": "folder", "path": str(root), "keep": False}, transform={"name": "grayscale"})
    assert isinstance(lazily.train_x, LazySamples)
    assert lazily.train_x[[0, 1]].shape == (2, 1, 6, 5)


@pytest.mark.parametrize(
    ("transform", "message"),
    (
        (lambda x: x + torch.rand_like(x), "is random"),
        (lambda x: x.tolist(), "returned a list, not a tensor"),
        (lambda x: x.reshape(3), r"fails on a sample of the shape \(1, 8, 8\)"),
        ([], "got an empty list"),
        ({"name": "resise", "size": 4}, "did you mean 'resize'"),
    ),
)
def test_transforms_that_cannot_be_used_are_refused(transform, message: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises((ValueError, KeyError), match=message):
        load_source("digits", transform=transform)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_transform_is_given_once() -> None:
    with pytest.raises(TypeError, match="give one of them"):
        load_source({"name": "digits", "transform": "grayscale"}, transform=lambda x: x)


def test_a_file_of_results_names_no_transform_outside_the_registry() -> None:
    from lit_meta.data.scenarios import scenario_for_seed

    spec = {"name": "split", "source": {"name": "digits", "transform": {"class_path": "os.system", "init_args": {}}}}
    with pytest.raises(ValueError, match="what a file names is not imported"):
        scenario_for_seed(spec, 0, trusted=False)


def test_own_data_by_name_in_a_config(tmp_path: Path) -> None:
    from lit_meta.experiments import load_experiment
    from lit_meta.experiments.checks import check_specs

    root = folder_of(tmp_path / "pets", {"a": 5, "b": 5, "c": 5, "d": 5})
    assert scenario_spec(f"split-folder:{root}").to_dict()["source"] == {"name": "folder", "path": str(root)}
    assert not any("folder" in name or "npz" in name for name in scenario_names())
    benchmark = scenario(f"split-folder:{root}", experiences=2)
    assert (benchmark.name, benchmark.classes, len(benchmark.train_stream)) == ("split-pets", 4, 2)
    config = {
        "name": "mine",
        "scenario": {"name": "split", "source": {"name": "folder", "path": str(root), "transform": "grayscale"}},
        "network": {"name": "mlp", "inputs": 30, "hidden": [8], "classes": 4, "output": "identity"},
        "rule": "ewc",
        "optimizer": {"name": "sgd", "lr": 0.1},
        "max_epochs": 1,
        "batch_size": 4,
        "seeds": [0],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    experiment = load_experiment(str(tmp_path / "mine.yaml"))
    check_specs(experiment)
    assert scenario(experiment.scenario).input_shape == (1, 6, 5)
    with pytest.raises(TypeError, match=r"needs a path: split-folder:PATH"):
        scenario("split-folder")


def test_labels_of_an_npz_file_may_be_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    x, y = np.zeros((10, 4), np.float32), np.array(["owl", "cat"] * 5)
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    source = load_source(f"npz:{file}")
    assert source.classes == ("cat", "owl")
    assert source.train_y.tolist() == source.test_y.tolist() == [1, 0] * 5
    np.savez(file, x_train=x, y_train=y, x_test=x[:1], y_test=np.array(["elk"]))
    with pytest.raises(ValueError, match="class 'elk' has no training samples"):
        load_source(f"npz:{file}")
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=np.arange(10) % 2)
    with pytest.raises(ValueError, match="y_train: expected labels as whole numbers"):
        load_source(f"npz:{file}")


def test_a_single_array_is_no_npz_file(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((10, 4)))
    with pytest.raises(ValueError, match="it holds a single array without a name"):
        load_source(f"npz:{tmp_path / 'mine.npy'}")

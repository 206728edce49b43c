"""Public data sets from tiny files in their true formats, which the tests write, and what happens where they are absent."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import json
import pickle
import threading
import wave
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_meta.data import load_source
from lit_meta.data.lazy_samples import LazySamples
from lit_meta.data.sources import _download, catalog, registry
from lit_meta.data.sources.catalog import CATALOG, SEE_PAGE, Archive
from lit_meta.data.sources.registry import OWN_DATA, SOURCES, source_names
from tests.data.test_sources import idx

RANDOM = np.random.default_rng(0)


def again(spec: object, root: Path) -> object:
    """Loads what was loaded before, from files that have changed since."""
    registry._load.cache_clear()
    return load_source(spec, root=root)


def bytes_of(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def picture(file: Path, array: np.ndarray) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)
    return array


def recording(file: Path, samples: int = 1600, rate: int = 16_000) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(RANDOM.integers(-9000, 9000, samples).astype("<i2").tobytes())


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def test_the_catalogue_describes_every_data_set_and_nothing_else() -> None:
    assert set(CATALOG) == set(source_names())
    assert set(SOURCES) == {*CATALOG, *OWN_DATA}
    assert {"csv", "events", "folder", "hf", "npz"} <= set(OWN_DATA)
    for name, facts in CATALOG.items():
        assert facts.classes > 1
        assert facts.licence
        # Of MathGreek nobody has seen more than the paper.
        assert (facts.licence == SEE_PAGE) == (name == "math-greek"), name
        assert facts.homepage.startswith("http")
        assert facts.licence_stated_at.startswith("http")
        assert not facts.archives or facts.files, name
        for archive in facts.archives:
            kind, _, digest = archive.digest.partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[kind]


def test_the_digests_are_those_of_torchvision_and_avalanche() -> None:
    from avalanche.benchmarks.datasets import CUB200, TinyImagenet
    from avalanche.benchmarks.datasets.core50 import core50_data
    from torchvision import datasets

    known = {digest for cls in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST) for _, digest in cls.resources}
    known |= {
        datasets.EMNIST.md5,
        datasets.CIFAR10.tgz_md5,
        datasets.CIFAR100.tgz_md5,
        TinyImagenet.md5,
        CUB200.tgz_md5,
    }
    known |= {row[2] for table in (datasets.USPS.split_list, datasets.SVHN.split_list) for row in table.values()}
    known |= {digest for _, _, digest in core50_data.data}
    here = {
        archive.digest.removeprefix("md5:")
        for name, facts in CATALOG.items()
        if name not in ("shd", "ssc", "n-mnist", "speech-commands")
        for archive in facts.archives
    }
    assert here <= known
    assert len(here) > 20


@pytest.mark.parametrize("name", [name for name in CATALOG if CATALOG[name].files])
def test_absent_data_say_in_one_sentence_what_where_and_how(name: str, tmp_path: Path, monkeypatch) -> None:
    def no_network(archive: Archive, folder: Path) -> None:
        raise OSError("no network")

    monkeypatch.setattr(_download, "_retrieve", no_network)
    with pytest.raises(FileNotFoundError, match=r"not found: expected .*http.*LIT_META_DATA") as caught:
        load_source(name, root=tmp_path)
    said = str(caught.value)
    assert str(tmp_path) in said
    assert "\n" not in said
    if CATALOG[name].archives:
        assert "no network" in said
        assert CATALOG[name].archives[0].url in said


@pytest.fixture
def server(tmp_path: Path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder that a server of this machine offers, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as offered:
        threading.Thread(target=offered.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{offered.server_address[1]}/"
        offered.shutdown()


def test_downloads_are_checked_unpacked_and_read(server, tmp_path: Path, monkeypatch) -> None:
    served, address = server
    archives = []
    for i, part in enumerate(("train", "t10k")):
        for kind, array in (
            ("images-idx3", bytes_of(20 - i, 28, 28)),
            ("labels-idx1", np.arange(20 - i, dtype=np.uint8) % 10),
        ):
            file = served / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(array)))
            archives.append(Archive(address + file.name, f"md5:{md5(file)}", "KMNIST/raw", "gz"))
    monkeypatch.setitem(catalog.CATALOG, "kmnist", replace(CATALOG["kmnist"], archives=tuple(archives)))
    source = load_source("kmnist", root=tmp_path / "data")
    assert (len(source.train_y), len(source.test_y), source.classes[2]) == (20, 19, "su")
    # Once there, nothing is downloaded; a file with another digest is refused and never read.
    wrong = tuple(replace(archive, digest="md5:" + 32 * "0") for archive in archives)
    monkeypatch.setitem(catalog.CATALOG, "kmnist", replace(CATALOG["kmnist"], archives=wrong))
    load_source({"name": "kmnist"}, root=tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"Downloading http://127.*failed.*hash"):
        load_source("kmnist", root=tmp_path / "other")


def test_archives_of_folders_are_unpacked(server, tmp_path: Path) -> None:
    served, address = server
    with zipfile.ZipFile(served / "some.zip", "w") as archive:
        archive.writestr("inside/file.txt", "content")
    _download._retrieve(Archive(f"{address}some.zip", f"md5:{md5(served / 'some.zip')}", "", "zip"), tmp_path / "there")
    assert (tmp_path / "there" / "inside" / "file.txt").read_text() == "content"


@pytest.mark.parametrize(("name", "folder"), (("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")))
def test_sets_in_the_image_of_mnist(name: str, folder: str, tmp_path: Path) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = bytes_of(10, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(10, dtype=np.uint8)))
    source = load_source(name, root=tmp_path)
    assert source.name == name
    assert len(set(source.classes)) == 10
    assert torch.equal((source.train_x[:, 0] * 255).round(), torch.from_numpy(pixels).float())


@pytest.mark.parametrize("packed", (False, True))
def test_the_letters_of_emnist_are_upright_and_counted_from_0(packed: bool, tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw" / ("gzip" if packed else "")
    raw.mkdir(parents=True)
    pixels = bytes_of(26, 28, 28)
    for part in ("train", "test"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(1, 27, dtype=np.uint8))):
            name, content = f"emnist-letters-{part}-{kind}-ubyte", idx(array)
            (raw / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    source = load_source("emnist-letters", root=tmp_path)
    assert source.train_y.tolist() == list(range(26))
    assert torch.equal((source.test_x[3, 0] * 255).round(), torch.from_numpy(pixels[3].T.copy()).float())
    (raw / ("emnist-letters-train-labels-idx1-ubyte" + (".gz" if packed else ""))).write_bytes(b"broken")
    with pytest.raises(ValueError, match="emnist-letters-train-labels"):
        again({"name": "emnist-letters"}, tmp_path)


def test_usps_from_libsvm_files(tmp_path: Path) -> None:
    folder = tmp_path / "USPS"
    folder.mkdir()
    lines = [f"{label + 1} " + " ".join(f"{i + 1}:{-1 + 0.1 * label:.1f}" for i in range(256)) for label in range(10)]
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    source = load_source("usps", root=tmp_path)
    assert source.train_x.shape == (10, 1, 16, 16)
    assert source.train_y.tolist() == list(range(10))
    assert source.train_x[5].mean() == pytest.approx(0.25, abs=1 / 255)
    (folder / "usps.bz2").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"usps\.bz2 cannot be read"):
        again({"name": "usps"}, tmp_path)


def test_svhn_from_matlab_files(tmp_path: Path) -> None:
    from scipy.io import savemat

    folder = tmp_path / "SVHN"
    folder.mkdir()
    pixels = bytes_of(32, 32, 3, 10)
    for part in ("train", "test"):
        savemat(folder / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
    source = load_source("svhn", root=tmp_path)
    assert source.train_y.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(
        (source.train_x[4] * 255).round(), torch.from_numpy(pixels[..., 4].transpose(2, 0, 1).copy()).float()
    )
    savemat(folder / "test_32x32.mat", {"X": pixels[..., :5], "y": np.zeros((4, 1))})
    with pytest.raises(ValueError, match=r"test_32x32\.mat: expected X"):
        again({"name": "svhn"}, tmp_path)


def test_cifar100_from_its_batches(tmp_path: Path, monkeypatch) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels, labels = bytes_of(100, 3072), list(range(100))
    for name, content in (
        ("train", {"data": pixels, "fine_labels": labels}),
        ("test", {"data": pixels[:50], "fine_labels": labels[:50]}),
        ("meta", {"fine_label_names": [f"thing {i}" for i in range(100)]}),
    ):
        (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(FileNotFoundError, match="incomplete"):  # Not the published files: never unpickled.
        load_source("cifar100", root=tmp_path)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(folder / "meta")})
    source = load_source("cifar100", root=tmp_path)
    assert (source.classes[7], len(source.train_y), len(source.test_y)) == ("thing 7", 100, 50)
    assert torch.equal((source.train_x[9].flatten() * 255).round(), torch.from_numpy(pixels[9]).float())


def test_tiny_imagenet_from_its_folders(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-imagenet-200"
    ids = [f"n{i:08d}" for i in range(200)]
    annotations = []
    for i, wnid in enumerate(ids):
        picture(folder / "train" / wnid / "images" / f"{wnid}_0.JPEG", np.full((4, 4, 3), i, np.uint8))
        picture(folder / "val" / "images" / f"val_{i}.JPEG", np.full((4, 4, 3), i, np.uint8))
        annotations.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t3\t3")
    (folder / "wnids.txt").write_text("\n".join(ids) + "\n")
    (folder / "words.txt").write_text(
        "".join(f"{wnid}\t{'crane' if i < 2 else f'word {i}'}, other\n" for i, wnid in enumerate(ids))
    )
    (folder / "val" / "val_annotations.txt").write_text("\n".join(annotations) + "\n")
    source = load_source({"name": "tiny-imagenet", "size": 4}, root=tmp_path)
    assert source.classes[:3] == ("crane (n00000000)", "crane (n00000001)", "word 2")
    assert source.train_x.shape == source.test_x.shape == (200, 3, 4, 4)
    assert source.test_x[150].mean() == pytest.approx(150 / 255, abs=2 / 255)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet not found.*incomplete"):
        load_source({"name": "tiny-imagenet", "size": 3}, root=tmp_path)


def test_core50_unpickles_the_published_lists_only(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "core50"
    paths = [f"s{1 if i < 50 else 3}/o{i % 50 + 1}/C_{i:02d}.png" for i in range(100)]
    for i, path in enumerate(paths):
        picture(folder / "core50_128x128" / path, np.full((8, 8, 3), 2 * i, np.uint8))
    (folder / "batches_filelists").mkdir()
    (folder / "NIC_v2_79_cat").mkdir()
    batches = [list(range(i, 50, 8)) for i in range(8)]
    labels = [i % 50 for i in range(100)]
    # The eight training batches, then the test set; labels stand in the order of the paths.
    content = {
        "paths.pkl": paths,
        "LUP.pkl": {"ni": [[*batches, list(range(50, 100))]]},
        "labels.pkl": {"ni": [[labels[:50], *[[] for _ in range(7)], labels[50:]]]},
        "labels2names.pkl": {"ni": [{}]},
    }
    for name, value in content.items():
        (folder / name).write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=r"paths\.pkl is not the published file"):
        load_source("core50", root=tmp_path)
    archives = tuple(
        replace(a, digest=f"md5:{md5(folder / a.name)}") if a.name in content else a for a in CATALOG["core50"].archives
    )
    monkeypatch.setitem(catalog.CATALOG, "core50", replace(CATALOG["core50"], archives=archives))
    source = load_source({"name": "core50", "size": 8}, root=tmp_path)
    assert source.train_y.tolist() == source.test_y.tolist() == list(range(50))
    assert source.test_x[1].mean() == pytest.approx(102 / 255, abs=1e-4)
    assert (
        load_source({"name": "core50", "size": 8, "categories": True}, root=tmp_path).train_y.bincount().tolist()
        == [5] * 10
    )


def test_clear10_in_the_order_of_its_years(tmp_path: Path) -> None:
    names = ["baseball", "BACKGROUND"]
    for part in ("train", "test"):
        folder = tmp_path / "clear10" / part
        metadata: dict[str, dict[str, str]] = {}
        for year in ("1", "2"):
            metadata[year] = {}
            for name in names:
                image = f"labeled_images/{year}/{name}/0.jpg"
                picture(folder / image, np.full((5, 7, 3), 100 * int(year), np.uint8))
                file = f"labeled_metadata/{year}/{name}.json"
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text(json.dumps({"0": {"IMG_PATH": image}}))
                metadata[year][name] = file
        (folder / "labeled_metadata.json").write_text(json.dumps(metadata))
        (folder / "class_names.txt").write_text("\n".join(names))
    source = load_source({"name": "clear10", "size": 6}, root=tmp_path)
    assert source.classes == tuple(names)
    assert source.train_x.shape == (4, 3, 6, 6)
    assert source.train_y.tolist() == [0, 1, 0, 1]
    assert (source.train_x.mean((1, 2, 3)) * 255).round().tolist() == pytest.approx([100, 100, 200, 200], abs=2)


def test_cub200_from_its_lists(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    rows = [
        (1, "001.Albatross/a.jpg", 1, 1),
        (2, "001.Albatross/b.jpg", 0, 1),
        (3, "002.Auk/c.jpg", 1, 2),
        (4, "002.Auk/d.jpg", 0, 2),
    ]
    for number, file, _, label in rows:
        picture(folder / "images" / file, np.full((9, 11, 3), 50 * number + label, np.uint8))
    (folder / "images.txt").write_text("".join(f"{i} {file}\n" for i, file, _, _ in rows))
    (folder / "train_test_split.txt").write_text("".join(f"{i} {train}\n" for i, _, train, _ in rows))
    (folder / "image_class_labels.txt").write_text("".join(f"{i} {label}\n" for i, _, _, label in rows))
    (folder / "bounding_boxes.txt").write_text("".join(f"{i} 1.0 1.0 4.0 4.0\n" for i, *_ in rows))
    (folder / "classes.txt").write_text("1 001.Albatross\n2 002.Auk\n")
    source = load_source({"name": "cub200", "size": 8}, root=tmp_path)
    assert source.classes == ("Albatross", "Auk")
    assert (source.train_x.mean((1, 2, 3)) * 255).round().tolist() == pytest.approx([51, 152], abs=2)
    assert source.test_y.tolist() == [0, 1]


def test_speech_commands_by_the_published_lists(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "SpeechCommands"
    for word in ("no", "yes"):
        for i in range(3):
            recording(folder / word / f"{i:08x}_nohash_0.wav")
    recording(folder / "_background_noise_" / "noise.wav")
    (folder / "validation_list.txt").write_text("no/00000000_nohash_0.wav\nyes/00000000_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("no/00000001_nohash_0.wav\nyes/00000001_nohash_0.wav\n")
    source = load_source("speech-commands", root=tmp_path)
    assert (source.classes, source.train_y.tolist(), source.test_y.tolist()) == (("no", "yes"), [0, 1], [0, 1])
    assert source.input_shape == (1, 30, 30)


def test_math_greek_has_46_classes_of_one_size(tmp_path: Path) -> None:
    ink = np.full((45, 45), 255, np.uint8)
    ink[20, 20] = 0
    for label in range(46):
        for i in range(5):
            picture(tmp_path / "MathGreek" / f"symbol{label:02d}" / f"{i}.png", ink)
    source = load_source("math-greek", root=tmp_path)
    assert source.train_x.shape == (46 * 4, 1, 45, 45)
    assert source.test_x.sum() == 46
    for i in range(5):
        picture(tmp_path / "MathGreek" / "one more" / f"{i}.png", ink)
    with pytest.raises(ValueError, match="expected 46 classes of 45 x 45 pixels, got 47"):
        again({"name": "math-greek"}, tmp_path)


def events_of_mnist(x: int, y: int, on: int, time: int) -> bytes:
    return bytes([x, y, on << 7 | time >> 16 & 127, time >> 8 & 255, time & 255])


def test_n_mnist_from_its_40_bit_events(tmp_path: Path) -> None:
    pytest.importorskip("tonic")
    for part in ("Train", "Test"):
        for digit in range(10):
            file = tmp_path / "NMNIST" / part / str(digit) / "00001.bin"
            file.parent.mkdir(parents=True)
            file.write_bytes(events_of_mnist(3, 4, 1, 0) + events_of_mnist(33, 0, 0, 100_000))
    source = load_source({"name": "n-mnist", "frames": 5}, root=tmp_path)
    assert source.input_shape == (5, 2, 34, 34)
    assert source.train_x[7].nonzero().tolist() == [[0, 1, 4, 3], [4, 0, 0, 33]]
    assert source.test_y.tolist() == list(range(10))
    file.write_bytes(events_of_mnist(34, 4, 1, 0))
    with pytest.raises(ValueError, match=r"00001\.bin: expected x below 34, got 34"):
        load_source({"name": "n-mnist", "frames": 6}, root=tmp_path)


@pytest.mark.parametrize("name", ("shd", "ssc"))
def test_spikes_of_a_cochlea(name: str, tmp_path: Path, monkeypatch) -> None:
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / name.upper()
    folder.mkdir()
    for part in ("train", "test"):
        with h5py.File(folder / f"{name}_{part}.h5", "w") as file:
            times = file.create_dataset("spikes/times", (2,), dtype=h5py.vlen_dtype(np.float16))
            units = file.create_dataset("spikes/units", (2,), dtype=h5py.vlen_dtype(np.uint16))
            times[0], units[0] = np.array([0.0, 0.5, 1.0], np.float16), np.array([0, 699, 5], np.uint16)
            times[1], units[1] = np.array([], np.float16), np.array([], np.uint16)
            file["labels"] = np.array([1, 0], np.uint16)
            file["extra/keys"] = np.array([b"zero", b"one"])
    for limit in (1 << 30, 0):  # Kept in memory, and read when asked for.
        monkeypatch.setattr("lit_meta.data.lazy_samples.KEPT_BYTES", limit)
        source = load_source({"name": name, "frames": 4 if limit else 8}, root=tmp_path)
        frames = 4 if limit else 8
        assert isinstance(source.train_x, torch.Tensor if limit else LazySamples)
        assert source.train_x[0].nonzero().tolist() == [[0, 0], [frames // 2, 699], [frames - 1, 5]]
        assert source.train_x[1].sum() == 0
        assert (source.train_y.tolist(), source.classes) == ([1, 0], ("zero", "one"))


def test_an_alphabet_of_omniglot_by_its_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for character in ("character01", "character02"):
        for drawer in range(1, 21):
            picture(
                tmp_path / "omniglot" / "images" / "Korean" / character / f"0001_{drawer:02d}.png",
                np.zeros((105, 105), bool),
            )
            file = tmp_path / "omniglot" / "strokes" / "Korean" / character / f"0001_{drawer:02d}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("START\n0,0,0\n50,-50,100\nBREAK\n")
    drawn = load_source({"name": "omniglot", "alphabet": "Korean"}, root=tmp_path)
    moving = load_source({"name": "omniglot", "alphabet": "Korean", "strokes": True}, root=tmp_path)
    assert (drawn.classes, len(drawn.train_y), len(drawn.test_y)) == (("character01", "character02"), 30, 10)
    assert moving.input_shape == (20, 1, 28, 28)
    with pytest.raises(ValueError, match="alphabet must be the name of a folder"):
        load_source({"name": "omniglot", "alphabet": "../MNIST"}, root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Omniglot's Tifinagh alphabet \(images\) not found"):
        load_source({"name": "omniglot", "alphabet": "Tifinagh"}, root=tmp_path)


def test_a_stream_of_pictures_on_the_disk_is_scaled_and_learned_from(tmp_path: Path, monkeypatch) -> None:
    from lit_meta.data import scenario

    monkeypatch.setattr("lit_meta.data.lazy_samples.KEPT_BYTES", 0)
    for label in range(2):
        for i in range(5):
            buffer = io.BytesIO()
            Image.fromarray(bytes_of(4, 4, 3)).save(buffer, "PNG")
            file = tmp_path / "mine" / f"class {label}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(buffer.getvalue())
    spec = {"name": "folder", "path": str(tmp_path / "mine")}
    lazily = scenario("split", source=spec, standardize="train", class_order=[0, 1])
    kept = scenario("split", source={**spec, "keep": True}, standardize="train", class_order=[0, 1])
    for one, other in zip(lazily.train_stream, kept.train_stream, strict=True):
        for (x, y, *_), (expected, label, *_) in zip(one.dataset, other.dataset, strict=True):
            torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
            assert y == label

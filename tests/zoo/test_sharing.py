"""Entries used by name, folder and address; images of one's own; entries saved from Python and shared on the hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from lit_meta import MetaplasticModule, fit_stream, scenario, zoo
from lit_meta.cli import main
from lit_meta.data import load_source
from lit_meta.rules import EWC, RecursiveReadout, Rule
from lit_meta.utils.paths import zoo_folder

NAME = "patch-net.recursive-readout_split-digits"


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


@pytest.fixture
def picture(tmp_path, digits):
    """A test digit as dark ink on white paper, in colour, ten times its size."""
    pixels = (255 * (1 - digits.test_x[0, 0])).byte().numpy()
    image = Image.fromarray(pixels).resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
    image.save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_listing_and_filtering_need_no_pytorch():
    code = (
        "import sys; from lit_meta import zoo; "
        "assert zoo.list(rule='ewc', scenario='split-digits') == ['mlp.ewc_split-digits']; "
        "assert 'lif-mlp.naca_mnist' in zoo.list(spiking=True); "
        "assert zoo.list(scenario='split-mnist') == zoo.list(scenario='mnist'); zoo.card('mlp.ewc_split-digits'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_damaged_entry_is_left_out_of_the_list_with_a_warning(tmp_path, monkeypatch):
    for name in ("mlp.ewc_split-digits", "mlp.naca_split-digits"):
        shutil.copytree(zoo_folder() / name, tmp_path / name)
    (tmp_path / "mlp.ewc_split-digits" / "config.json").write_text("{")
    for folder in ("zoo_folder", "own_zoo_folder"):
        monkeypatch.setattr(f"lit_meta.zoo.layout.{folder}", lambda: tmp_path)
    with pytest.warns(UserWarning, match="mlp.ewc_split-digits is left out"):
        assert zoo.list() == ["mlp.naca_split-digits"]


def test_a_digit_on_paper_is_read(picture, digits, capsys):
    prediction = zoo.predict(NAME, picture)
    assert (prediction.class_name, prediction.label) == (str(int(digits.test_y[0])), int(digits.test_y[0]))
    assert prediction.margin > 0
    assert main(["predict", NAME, str(picture)]) == 0
    assert f" {prediction.class_name} " in capsys.readouterr().out


def test_predictions_are_those_of_the_network(digits):
    network = zoo.load(NAME)
    with torch.no_grad():
        expected = network(digits.test_x[:20]).argmax(1)
    predictions = zoo.predict(network, [*digits.test_x[:20]])
    assert [p.label for p in predictions] == expected.tolist()
    assert network.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("sample", "message"),
    (
        (torch.zeros(2, 8), None),
        (torch.zeros(3, 5, 7), None),
        (np.zeros((16, 16, 3), dtype=np.uint8), None),
        (np.full((8, 8), np.nan), "NaN"),
        (torch.zeros(0, 8), "empty"),
        (torch.zeros(4), "has the shape"),
        (np.full((8, 8), 255), "numbers in .0, 1., got torch.int64 from 255 to 255"),
        (torch.full((1, 8, 8), -1.0), "numbers in .0, 1., got torch.float32 from -1 to -1"),
        ("nowhere.png", "no file"),
    ),
)
def test_samples_of_other_shapes_are_fitted_or_refused(sample, message):
    transform = zoo.load(NAME).transform
    if message is None:
        assert transform(sample).shape == (1, 1, 8, 8)
        return
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        transform(sample)


def test_a_file_that_is_no_image_is_one_line(tmp_path, capsys):
    (tmp_path / "x.png").write_text("not an image")
    assert main(["predict", NAME, str(tmp_path / "x.png")]) == 1
    assert "is no image that can be read" in capsys.readouterr().err
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert main(["predict", NAME, str(tmp_path / "pickled.npy")]) == 1
    assert "is no array" in capsys.readouterr().err


def test_ink_is_centred_by_its_mass_where_the_card_says_so():
    image = Image.new("L", (200, 300), 255)
    ImageDraw.Draw(image).ellipse((20, 30, 80, 130), fill=0)
    values = zoo.Transform((1, 28, 28), background=0.0, box=20)(image)[0, 0]
    ys, xs = torch.nonzero(values > 0.5, as_tuple=True)
    assert int(ys.max() - ys.min()) + 1 == pytest.approx(20, abs=1)
    assert float(ys.float().mean()) == pytest.approx(13.5, abs=1)
    assert float(xs.float().mean()) == pytest.approx(13.5, abs=1)


def test_transparent_paper_is_white():
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 18, 18), fill=(0, 0, 0, 255))
    values = zoo.Transform((1, 28, 28), background=0.0)(image)[0, 0]
    assert (float(values[14, 14]), float(values[0, 0])) == (1.0, 0.0)


@pytest.mark.parametrize("ink", ((255, 255, 255), (255, 255, 0), (0, 0, 0), (90, 0, 0)))
@pytest.mark.parametrize("paper", ((0, 0, 0), (255, 255, 255)))
def test_ink_on_transparent_paper_is_read_whatever_its_colour(ink, paper):
    image = Image.new("RGBA", (28, 28), (*paper, 0))
    ImageDraw.Draw(image).rectangle((10, 10, 18, 18), fill=(*ink, 255))
    values = zoo.Transform((1, 28, 28), background=0.0)(image)[0, 0]
    assert float(values[14, 14]) > 0.8
    assert float(values[0, 0]) == 0


def test_a_page_with_a_transparent_margin_is_a_page():
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((3, 3, 24, 24), fill=(255, 255, 255, 255))
    ImageDraw.Draw(image).rectangle((10, 10, 18, 18), fill=(20, 20, 20, 255))
    values = zoo.Transform((1, 28, 28), background=0.0)(image)[0, 0]
    assert (float(values[5, 5]), float(values[0, 0])) == (0.0, 0.0)
    assert float(values[14, 14]) > 0.9


@pytest.mark.parametrize("ink", (0, 255))  # On paper and on a blackboard.
@pytest.mark.parametrize("size", ((64, 16), (16, 64)))
def test_ink_keeps_its_proportions_on_the_background(size, ink):
    width, height = size
    image = Image.new("L", size, 255 - ink)
    image.paste(ink, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    values = zoo.Transform((1, 16, 16), background=0.0)(image)[0, 0]
    rows, columns = ((values > 0.5).any(d).nonzero().flatten().tolist() for d in (1, 0))
    expected = list(range(4, 12)), [7, 8]
    assert (columns, rows) == (expected if width > height else expected[::-1])


def test_a_photograph_of_other_proportions_is_cut_to_its_centre():
    image = np.zeros((3, 16, 40), dtype=np.float32)
    image[0, :, :12], image[1, :, 12:28], image[2, :, 28:] = 1, 1, 1
    for given in (image, image.transpose(0, 2, 1)):
        values = zoo.Transform((3, 8, 8))(torch.from_numpy(given.copy()))[0]
        assert torch.equal(values, torch.stack([torch.zeros(8, 8), torch.ones(8, 8), torch.zeros(8, 8)]))


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    image = Image.new("RGB", (8, 8), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 7, 2), fill="black")
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees to the right.
    image.save(tmp_path / "turned.png", exif=exif)
    values = zoo.Transform((1, 8, 8))(tmp_path / "turned.png")[0, 0]
    assert (values[:, 5:].max(), values[:, :5].min()) == (0, 1)


def test_mnist_entries_read_pictures_of_mnist(data_root, tmp_path):
    mnist = load_source("mnist")
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        pixels = (255 * (1 - mnist.test_x[number, 0])).byte().numpy()
        Image.fromarray(pixels).resize((280, 280), Image.Resampling.BICUBIC).save(paths[-1])
    labels = [prediction.label for prediction in zoo.predict("mlp.naca_mnist", paths)]
    assert sum(label == int(truth) for label, truth in zip(labels, mnist.test_y, strict=False)) >= 18


def trained():
    """A small network that learned two digits, and the spec that builds it."""
    spec = {"name": "mlp", "inputs": 64, "hidden": [16], "classes": 10, "output": "identity"}
    module = MetaplasticModule(spec, rule=RecursiveReadout(ridge=0.01), optimizer={"name": "sgd", "lr": 0.2})
    stream = scenario("split-digits", experiences=5)
    stream.train_stream = [stream.train_stream[0]]
    fit_stream(module, stream, accelerator="cpu")
    return module, spec


def test_a_module_saved_from_python_comes_back_as_it_was(tmp_path, digits):
    module, spec = trained()
    names = [f"digit {n}" for n in range(10)]
    folder = zoo.save(
        module,
        tmp_path / "mine",
        network=spec,
        samples=digits.test_x[:4],
        class_names=names,
        transform=zoo.Transform((1, 8, 8), background=0),
        provenance={"weights": {"licence": "MIT"}},
        note="Two digits.",
    )
    assert zoo.verify(folder) == []
    again = zoo.load(folder, with_rule=True)
    assert torch.equal(again.eval()(digits.test_x[:9]), module.eval()(digits.test_x[:9]))
    one, other = (m.plasticity.rules[0].state.state_dict() for m in (module, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    card = zoo.card(folder)
    assert card["optimizer"] == {"name": "sgd", "lr": 0.2}
    assert zoo.predict(folder, digits.test_x[0]).class_name in names
    assert zoo.export(folder, tmp_path / "out") == tmp_path / "out" / "mine"
    # It goes on learning, and is saved in the same place.
    zoo.save(again, folder, network=spec, samples=digits.test_x[:4], class_names=names)
    assert zoo.verify(folder) == []


class Unknown(Rule):
    pass


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"network": {"name": "mlp", "inputs": 64, "hidden": [17], "classes": 10}}, "builds another network"),
        ({"network": {"class_path": "torch.nn.Linear", "init_args": {}}}, "not a registered network"),
        ({"class_names": ["a", "b"]}, "class names"),
        ({"name": "../x"}, "without slashes"),
        ({"provenance": {"code": {}}}, "data and weights"),
        ({"rule": Unknown()}, "no name"),
        ({"rule": EWC()}, "lacks 'importance"),
    ),
)
def test_what_cannot_be_saved_leaves_nothing_behind(tmp_path, digits, change, message):
    spec = {"name": "mlp", "inputs": 64, "hidden": [16], "classes": 10}
    arguments = {"network": spec, "class_names": list("0123456789"), **change}
    module = MetaplasticModule(spec, rule=arguments.pop("rule", None))
    with pytest.raises(ValueError, match=message):
        zoo.save(module, tmp_path / "mine", samples=digits.test_x[:4], **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_not_overwritten(tmp_path, digits):
    (tmp_path / "thesis.tex").write_text("important")
    spec = {"name": "mlp", "inputs": 64, "hidden": [16], "classes": 10}
    with pytest.raises(ValueError, match="something else than a zoo entry"):
        zoo.save(
            MetaplasticModule(spec), tmp_path, network=spec, samples=digits.test_x[:4], class_names=list("0123456789")
        )
    assert (tmp_path / "thesis.tex").read_text() == "important"


class Hub:
    """The part of the hub's client that is used, with a folder in place of the hub."""

    def __init__(self, root):
        self.root, self.offline = root, False

    def HfApi(self, token=None):
        return self

    def create_repo(self, repository, *, private, exist_ok):
        self._reach()
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        self._reach()
        for path in Path(folder_path).iterdir():
            if path.name in allow_patterns:
                shutil.copy(path, self.root / repo_id / path.name)
        (self.root / repo_id / ".gitattributes").write_text("")

    def hf_hub_download(self, repository, file, *, revision):
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

        self._reach()
        if not (self.root / repository).is_dir() or revision not in (None, "main"):
            raise _error(RepositoryNotFoundError)
        if not (self.root / repository / file).is_file():
            raise _error(EntryNotFoundError)
        return str(self.root / repository / file)

    def _reach(self):
        if self.offline:
            raise ConnectionError("no network")


def _error(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "not found")
    return error


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr("lit_meta.zoo.hub._client", lambda: fake)
    return fake


def test_an_entry_goes_to_the_hub_and_comes_back(hub, capsys):
    pytest.importorskip("huggingface_hub")
    assert zoo.push_to_hub("mlp.ewc_split-digits", "me/ewc") == "hf://me/ewc"
    network, own = zoo.load("hf://me/ewc@main"), zoo.load("mlp.ewc_split-digits")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(network(x), own(x))
    assert "importance" in zoo.from_pretrained("me/ewc", with_rule=True).plasticity.rules[0].state
    assert main(["zoo", "push", "mlp.ewc_split-digits", "me/other"]) == 0
    assert zoo.card("hf://me/other")["name"] == "mlp.ewc_split-digits"
    for address, message in (
        ("hf://me/nothing", "the hub has no me/nothing"),
        ("hf://me/ewc@v2", "the hub has no me/ewc@v2"),
        ("hf://me/../x", "owner/name"),
        ("hf://me", "owner/name"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            zoo.load(address)
    hub.offline = True
    assert main(["zoo", "show", "hf://me/ewc"]) == 1
    assert "the hub cannot be reached" in capsys.readouterr().err
    with pytest.raises(OSError, match="cannot be reached"):
        zoo.push_to_hub("mlp.ewc_split-digits", "me/ewc")


def test_a_damaged_entry_does_not_leave_this_machine(hub, tmp_path):
    entry = shutil.copytree(zoo_folder() / "mlp.ewc_split-digits", tmp_path / "mlp.ewc_split-digits")
    (entry / "rule.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="sha256 differs"):
        zoo.push_to_hub(entry, "me/ewc")
    assert not hub.root.exists()


def test_a_changed_file_of_the_hub_is_refused(hub):
    zoo.push_to_hub("mlp.ewc_split-digits", "me/ewc")
    path = hub.root / "me" / "ewc" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="sha256 differs"):
        zoo.load("hf://me/ewc")


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"lit-meta\[hub\]"):
        zoo.load("hf://me/ewc")


@pytest.mark.parametrize("name", zoo.names())
def test_the_hub_reads_the_front_matter(name):
    cards = pytest.importorskip("huggingface_hub.repocard_data")
    matter = yaml.safe_load((zoo_folder() / name / "README.md").read_text().split("---")[1])
    data = cards.CardData(**matter)
    described = data.to_dict()
    assert (described["library_name"], described["license"]) == ("lit-meta", "apache-2.0")
    _, (result, *_) = cards.model_index_to_eval_results(matter["model-index"])
    assert result.metric_value == pytest.approx(
        100 * zoo.card(name)["results"]["rule"]["average_accuracy"]["mean"], abs=0.01
    )


def standard_on_digits():
    """Entries on the digits of the package, tested sample by sample."""
    cards = map(zoo.card, zoo.names())
    return [c["name"] for c in cards if "digits" in str(c["experiment"]["scenario"]) and c["protocol"] == "standard"]


@pytest.mark.parametrize("name", standard_on_digits())
def test_accuracy_in_avalanches_own_evaluation_is_ours(name):
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    card, network = zoo.card(name), zoo.load(name)
    stream = scenario(card["experiment"]["scenario"], seed=card["seed"])
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        criterion=torch.nn.CrossEntropyLoss(),
        eval_mb_size=64,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
    )
    theirs = [
        value for key, value in sorted(strategy.eval(stream.test_stream).items()) if key.startswith("Top1_Acc_Exp")
    ]
    assert len(theirs) == len(stream.test_stream)
    ours = zoo.evaluate(name).accuracy_matrix[-1]
    assert theirs == pytest.approx(ours, abs=1e-7)


@pytest.mark.parametrize("kind", ("folder", "npz"))
def test_a_run_on_data_of_ones_own_becomes_an_entry(kind, tmp_path):
    # By the name of a data set of another look, which says nothing of the data.
    place, random = tmp_path / "mnist", np.random.default_rng(0)
    pictures = {
        name: 60 + 100 * label + random.integers(0, 40, (10, 8, 8)) for label, name in enumerate(("cat", "dog"))
    }
    for name, images in pictures.items() if kind == "folder" else ():
        (place / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image.astype(np.uint8)).save(place / name / f"{i}.png")
    if kind == "npz":
        place = tmp_path / "mnist.npz"
        x, names = np.concatenate([*pictures.values()]).astype(np.uint8), np.array([*pictures])
        np.savez(place, x_train=x, y_train=np.arange(20) // 10, classes=names)
    source = {"name": kind, "path": str(place), **({"channels": 1} if kind == "folder" else {})}
    config = {
        "name": "pets",
        "scenario": {"name": "split", "source": source, "experiences": 2},
        "network": {"name": "mlp", "inputs": 64, "hidden": [20], "classes": 2},
        "rule": {"name": "recursive-readout"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "max_epochs": 1,
        "seeds": [0],
    }
    (tmp_path / "pets.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "pets.yaml"), "--run_dir", str(tmp_path / "run")]) == 0
    entry = zoo.add(tmp_path / "run", zoo=tmp_path / "zoo")
    assert zoo.verify(entry) == []
    transform = zoo.load(entry).transform
    if kind == "npz":
        assert (transform.kind, transform.box) == ("tensor", None)
        return
    assert (transform.kind, transform.background, transform.box) == ("image", None, None)
    files = [place / name / "0.png" for name in ("cat", "dog")]
    assert [p.class_name for p in zoo.predict(entry, files)] == ["cat", "dog"]

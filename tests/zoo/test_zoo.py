"""The zoo: entries are whole, perform as they say, and learning can go on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lit_meta import fit_stream, scenario, zoo
from lit_meta.cli import main
from lit_meta.data import load_source
from lit_meta.data.sources.base import missing
from lit_meta.experiments.loading import load_experiment
from lit_meta.utils.paths import own_zoo_folder, zoo_folder
from lit_meta.utils.renamed import RENAMED
from lit_meta.zoo.checks import read_tensors
from lit_meta.zoo.golden import golden_problem
from lit_meta.zoo.layout import entry_folder, locate
from lit_meta.zoo.pages import model_card
from lit_meta.zoo.schema import digest_of


@pytest.fixture
def copied_zoo(tmp_path, monkeypatch):
    """A copy of the zoo that a test may damage."""
    shutil.copytree(zoo_folder(), tmp_path / "zoo")
    for folder in ("zoo_folder", "own_zoo_folder"):
        monkeypatch.setattr(f"lit_meta.zoo.layout.{folder}", lambda: tmp_path / "zoo")
    return tmp_path / "zoo"


def on_embedded_data(name):
    return "digits" in zoo.card(name)["experiment"]["scenario"]["name"]


@pytest.mark.parametrize("name", zoo.names())
def test_an_entry_is_whole_and_performs_as_its_card_says(name, request):
    if "features" in str(zoo.card(name)["experiment"]["scenario"]):
        pytest.skip("features of all images take half an hour: `lit-meta zoo verify` measures them")
    if not on_embedded_data(name):
        request.getfixturevalue("data_root")
    # Networks of MNIST take a minute to learn more; `lit-meta zoo verify` lets them.
    assert zoo.verify(name, learn=on_embedded_data(name)) == []


@pytest.mark.parametrize("name", list(filter(on_embedded_data, zoo.names())))
def test_an_entry_goes_on_learning_with_its_memory(name):
    module = zoo.load(name, with_rule=True)
    rules = module.plasticity.rules
    # Of some rules the weights themselves are the memory.
    assert any(len(rule.state) or rule.remembers(module.network) == {} for rule in rules)
    # Ten experiences at least: a single one of sixty thousand digits would take minutes.
    spec = zoo.card(name)["experiment"]["scenario"]
    stream = scenario(**{**spec, "experiences": max(spec["experiences"], 10)}, seed=5)
    stream.train_stream = [stream.train_stream[0]]
    before = [p.detach().clone() for p in module.parameters()]
    fit_stream(module, stream, accelerator="cpu")
    assert any(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("name", zoo.names())
def test_the_page_of_an_entry_is_made_from_its_card(name):
    assert (zoo_folder() / name / "README.md").read_text() == model_card(zoo.card(name))


def test_a_head_on_a_backbone_recognises_photographs(data_root):
    pytest.importorskip("timm")
    name = "backbone.recursive-readout_split-cifar10"
    try:
        network = zoo.load(name)
    except FileNotFoundError as missing_weights:
        pytest.skip(str(missing_weights))
    card, files = zoo.card(name), locate(name)
    assert golden_problem(network, read_tensors(files, card, "golden.safetensors").tensors(), card["versions"]) == ""
    assert sum(path.stat().st_size for path in files.paths.values()) < 8_000_000
    source = load_source("cifar10")
    with torch.no_grad():
        predicted = network(source.test_x[:200]).argmax(1)
    assert (predicted == source.test_y[:200]).float().mean() > 0.83
    assert zoo.predict(network, source.test_x[3]).label == int(predicted[3])


def test_nothing_in_the_zoo_can_run_code():
    for path in zoo_folder().rglob("*"):
        assert path.is_dir() or path.suffix in (".safetensors", ".json", ".md"), path


def test_evaluation_measures_the_last_row_anew(copied_zoo):
    card = json.loads((copied_zoo / "mlp.ewc_split-digits" / "config.json").read_text())
    card["accuracy_matrix"][-1] = [0.0] * 10
    card["sha256"]["config.json"] = digest_of(card)
    (copied_zoo / "mlp.ewc_split-digits" / "config.json").write_text(json.dumps(card))
    evaluation = zoo.evaluate("mlp.ewc_split-digits")
    assert evaluation.average_accuracy == pytest.approx(card["results"]["seed_average_accuracy"], abs=0.002)
    assert sum(evaluation.accuracy_matrix[-1]) > 0


def test_a_damaged_file_is_named(copied_zoo):
    file = copied_zoo / "mlp.naca_split-digits" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "sha256 differs" in zoo.verify("mlp.naca_split-digits")[0]
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file that the card describes"):
        zoo.load("mlp.naca_split-digits")
    (copied_zoo / "mlp.ewc_split-digits" / "rule.safetensors").unlink()
    assert zoo.verify("mlp.ewc_split-digits") == ["rule.safetensors is missing"]
    with pytest.raises(FileNotFoundError, match=r"rule\.safetensors"):
        zoo.load("mlp.ewc_split-digits", with_rule=True)


def test_missing_data_are_named_and_do_not_keep_other_entries_from_being_verified(monkeypatch, capsys):
    def absent(name):
        raise missing("the pictures", Path("nowhere"), "Paint them")

    measured = zoo.evaluate
    chosen = ["mlp.ewc_split-digits", "mlp.naca_split-digits"]
    monkeypatch.setattr(zoo, "names", lambda: chosen)
    monkeypatch.setattr(
        "lit_meta.zoo.verification.evaluate", lambda name: absent(name) if name == chosen[0] else measured(name)
    )
    assert main(["zoo", "verify"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "the pictures not found: expected nowhere" in printed.replace("│ ", "")
    assert "Paint them" not in printed
    assert "whole │" in printed


@pytest.mark.parametrize(("former", "present"), RENAMED.items())
def test_former_names_of_entries_and_configs_still_work(former, present):
    with pytest.warns(FutureWarning, match=f"{former} is now {re.escape(present)}"):
        assert zoo.card(former)["name"] == present
    with pytest.warns(FutureWarning, match=re.escape(present)):
        assert load_experiment(former) == load_experiment(present)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"did you mean 'mlp\.naca_split-digits'"):
        zoo.load("mlp.naca_split-digit")


def test_export_copies_an_entry_and_never_overwrites(tmp_path):
    target = zoo.export("mlp.naca_split-digits", tmp_path)
    for path in (zoo_folder() / "mlp.naca_split-digits").iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(FileExistsError):
        zoo.export("mlp.naca_split-digits", tmp_path)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As where the package is installed: entries inside it, and no checkout around."""
    shutil.copytree(
        zoo_folder() / "mlp.ewc_split-digits", tmp_path / "site" / "lit_meta" / "zoo_entries" / "mlp.ewc_split-digits"
    )
    monkeypatch.setattr("lit_meta.utils.paths._PACKAGE", tmp_path / "site" / "lit_meta")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    return tmp_path


def finished_run(folder, name):
    """A run folder as one that an entry has been made from."""
    card = zoo.card("mlp.ewc_split-digits")
    folder.mkdir()
    for file in ("model.safetensors", "rule.safetensors"):
        shutil.copy(entry_folder("mlp.ewc_split-digits") / file, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump({**card["experiment"], "name": name}))
    (folder / "metrics.json").write_text(
        json.dumps({**card["results"], **{k: card[k] for k in ("command", "versions")}})
    )
    rows = [",".join(map(str, row)) for row in card["accuracy_matrix"]]
    (folder / "accuracy_matrix.csv").write_text("\n".join(rows))
    return folder


def test_an_entry_of_ones_own_is_kept_outside_the_installed_package_and_found_there(installed):
    package = {path: path.read_bytes() for path in (installed / "site").rglob("*") if path.is_file()}
    target = zoo.add(finished_run(installed / "run", "mine-digits"))
    assert target == installed / "mine" / "lit_meta" / "zoo" / "mine-digits"
    assert zoo.names() == ["mine-digits", "mlp.ewc_split-digits"]
    assert zoo.card("mine-digits")["name"] == "mine-digits"
    one, other = zoo.load("mine-digits").state_dict(), zoo.load("mlp.ewc_split-digits").state_dict()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert zoo.add(installed / "run") == target, "an entry of one's own is replaced"
    assert package == {path: path.read_bytes() for path in (installed / "site").rglob("*") if path.is_file()}


def test_nothing_that_is_added_stands_in_for_an_entry_of_the_package(installed):
    with pytest.raises(ValueError, match="included in lit_meta"):
        zoo.add(finished_run(installed / "run", "mlp.ewc_split-digits"))
    assert not (installed / "mine").exists()


def test_a_checkout_keeps_its_own_zoo():
    assert own_zoo_folder() == zoo_folder()


def test_an_unfinished_run_is_no_entry(tmp_path):
    with pytest.raises(FileNotFoundError, match="only a finished run"):
        zoo.add(tmp_path)

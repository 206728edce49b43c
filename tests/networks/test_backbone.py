"""A pretrained network below a head: what goes in, what stays frozen, which stages, and bad input."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lit_meta import MetaplasticModule, RecursiveReadout, backbone, fit_stream, scenario
from lit_meta.data.sources.base import Source
from lit_meta.networks import Backbone, Preprocessing, build_network
from lit_meta.networks.backbones import forms

TRANSFORM = Preprocessing(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def convnet(**last: nn.Module) -> nn.Sequential:
    """Three stages with batch normalisation, and a head of seven outputs."""
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate([(3, 4), (4, 6), (6, 8)]):
        layers[f"stage{i}"] = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()
        )
    tail = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(8, 7)}
    network = nn.Sequential()
    for name, layer in {**layers, **tail, **last}.items():
        network.add_module(name, layer)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_features_are_the_networks_own_and_the_statistics_of_its_stages(images):
    module = convnet().eval()
    network = backbone(module, classes=5, transform=TRANSFORM, depths=[0, "stage2"], statistics=("mean", "std", "grid"))
    assert network.parts == {
        "last": 8,
        **{"stage0/mean": 4, "stage0/std": 4, "stage0/grid": 16, "stage2/mean": 8, "stage2/std": 8, "stage2/grid": 32},
    }
    with torch.no_grad():
        x = (images - 0.5) / 0.25
        first = module.stage0(x)
        third = module.stage2(module.stage1(first))
        grid = torch.stack([first[:, :, i : i + 4, j : j + 4].mean((2, 3)) for i in (0, 4) for j in (0, 4)], dim=2)
        parts = dict(
            zip(network.parts, network.extract(images).split(list(network.parts.values()), dim=1), strict=True)
        )
        assert torch.allclose(parts["last"], third.mean((2, 3)), atol=1e-6)
        assert torch.allclose(parts["stage0/mean"], first.mean((2, 3)), atol=1e-6)
        assert torch.allclose(parts["stage0/std"], first.flatten(2).std(2, correction=0), atol=1e-6)
        assert torch.allclose(parts["stage0/grid"], grid.flatten(1), atol=1e-6)
        assert torch.allclose(parts["stage2/std"], third.flatten(2).std(2, correction=0), atol=1e-6)


def test_stages_are_found_in_other_peoples_networks():
    resnet = Backbone("torchvision:resnet18", classes=10, depths=2, size=64, pretrained=False)
    assert resnet.stage_names == ("layer1", "layer4")
    timm = pytest.importorskip("timm")
    lite = Backbone("timm:tf_efficientnet_lite0", classes=10, depths=5, size=64, pretrained=False)
    known = timm.create_model("tf_efficientnet_lite0").feature_info
    assert list(lite.stage_names) == [stage["module"] for stage in known]
    vit = Backbone("timm:vit_tiny_patch16_224", classes=10, depths=3, pretrained=False)
    assert vit.stage_names == ("blocks.3", "blocks.7", "blocks.11")


class Permuted(nn.Sequential):
    """Its output has channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).permute(0, 2, 3, 1)


class Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2))


def test_maps_with_channels_last_are_understood(images):
    network = backbone(
        nn.Sequential(Permuted(nn.Conv2d(3, 5, 3)), Pooled()), classes=2, transform=TRANSFORM, depths=["0"]
    )
    assert network.stages[0].layout == "channels_last"
    features = network.extract(images)
    assert torch.allclose(features[:, :5], features[:, 5:], atol=1e-6)


def test_the_head_alone_runs_on_features_that_were_kept(images):
    network = backbone(convnet(), classes=5, transform=TRANSFORM, depths=3, projection=50, seed=3)
    kept = network.extract(images)
    assert kept.shape == (6, network.width)
    assert torch.equal(network(kept), network(images))
    projected = torch.relu(kept @ network.projection)
    assert torch.allclose(network(images), network.head(projected), atol=1e-6)
    again = backbone(convnet(), classes=5, transform=TRANSFORM, depths=3, projection=50, seed=3)
    again.load_state_dict(network.state_dict())
    assert torch.equal(network(images), again(images)), "the projection comes from the seed, and is not saved"


def test_the_pretrained_part_neither_learns_nor_leaves_evaluation_mode(images):
    network = backbone(convnet(), classes=2, transform=TRANSFORM)
    before = copy.deepcopy(network.features.state_dict())
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    network.train()
    network(images).sum().backward()
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.features.state_dict().items())
    network.features.stage1.train()
    with pytest.raises(ValueError, match="training mode"):
        network(images)


def test_three_lines_learn_a_stream_and_the_module_that_was_passed_stays_whole():
    module = convnet()
    before = copy.deepcopy(module.state_dict())
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = (torch.rand(60, 3, 12, 12, generator=generator) * 0.2 + y.reshape(-1, 1, 1, 1) * 0.3).clamp(0, 1)
    source = Source("shades", x, y, x, y, ("dark", "grey", "light"))
    network = backbone(module, classes=3, transform=TRANSFORM, depths=3, statistics=("mean", "std"))
    learner = MetaplasticModule(network, rule=RecursiveReadout(ridge=1e-4))
    result = fit_stream(learner, scenario({"name": "split", "source": source}), accelerator="cpu")
    assert result.average_accuracy > 0.95
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_digest_follows_what_features_depend_on_and_nothing_else():
    def digest(module: nn.Module | None = None, **options: object) -> str:
        return backbone(module or convnet(), transform=TRANSFORM, **{"classes": 5, **options}).digest

    changed = convnet()
    with torch.no_grad():
        changed.stage1[1].running_mean += 1e-3
    same = digest()
    assert digest(classes=3, seed=4, projection=20) == same
    others = [digest(changed), digest(depths=1), digest(depths=2), digest(size=18), digest(preprocess=False)]
    assert len({same, *others}) == 6


def test_images_are_prepared_as_pillow_does_it():
    from PIL import Image

    pixels = torch.randint(60, 200, (40, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.numpy())
    half = Preprocessing(size=8, mean=(0.0,) * 3, std=(1.0,) * 3, crop=0.5)
    by_pillow = image.resize((16, 21), Image.Resampling.BICUBIC).crop((4, 6, 12, 14))
    expected = (
        torch.tensor(list(by_pillow.get_flattened_data()), dtype=torch.float32).reshape(8, 8, 3).permute(2, 0, 1) / 255
    )
    assert float((half(image) - expected).abs().max()) < 1.5 / 255
    assert torch.allclose(half(image), half(pixels.permute(2, 0, 1)), atol=1e-6)
    assert torch.equal(half(torch.ones(2, 1, 5, 5)), torch.ones(2, 3, 8, 8))
    assert Preprocessing.from_dict(half.to_dict()) == half


def test_every_form_gives_the_same_features_and_the_fastest_is_taken(images, monkeypatch):
    network = backbone(convnet(), classes=5, transform=TRANSFORM, depths=3, statistics=("mean", "std", "grid"))
    modes = [module.training for module in network.modules()]
    form, rows = forms.fastest_form(network, images, batches=(2, 5))
    assert [module.training for module in network.modules()] == modes
    assert {row["form"] for row in rows} >= {"eager", "channels_last", "frozen"}
    assert all(row["difference"] <= 1e-5 for row in rows), rows
    fastest = max(rows, key=lambda row: row["images_per_second"])
    assert (form.name, form.batch) == (fastest["form"], fastest["batch"])

    def wrong(network, name, batch):
        run = network.features_of if name == "eager" else lambda x: 1.01 * network.features_of(x)
        return forms.Form(name, batch, run)

    monkeypatch.setattr(forms, "make_form", wrong)
    rigged = [
        {"images_per_second": 1.0, "difference": 0.0},
        {"images_per_second": 9.0, "difference": 2e-4},
    ]
    monkeypatch.setattr(forms, "_measured", lambda *given: rigged.pop(0))
    form, _ = forms.fastest_form(network, images, forms=("eager", "frozen"), batches=(2,))
    assert form.name == "eager", "faster, but other features"


def test_a_backbone_is_a_network_like_others_in_a_config():
    spec = {"name": "backbone", "source": "torchvision:resnet18", "pretrained": False, "size": 32, "depths": [0, -1]}
    network = build_network({**spec, "classes": 4})
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(TypeError, match="did you mean 'depths'"):
        build_network({**spec, "classes": 4, "depth": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"transform": None}, "does not say how images are prepared"),
        ({"depths": 9}, "from 1 to 3, the network's number of stages"),
        ({"depths": [0, "stage0"]}, "'stage0' twice"),
        ({"depths": [7]}, "no stage 7"),
        ({"depths": []}, "depths is empty"),
        ({"depths": ["stag1"]}, "did you mean 'stage1'"),
        ({"depths": 1, "statistics": ("median",)}, "statistics must be different ones of mean, std, grid"),
        ({"statistics": ("std",)}, "no effect without it"),
        ({"projection": 0}, "projection must be at least 1"),
        ({"classes": 1}, "classes must be at least 2"),
        ({"crop": 1.5}, "crop must be above 0 and at most 1"),
        ({"head": "fd"}, "no Linear layer 'fd'; it has fc"),
        ({"sha256": "00"}, "not of a module"),
    ),
)
def test_what_is_wrong_with_options_is_said_in_one_sentence(options, message):
    with pytest.raises((ValueError, KeyError), match=message):
        backbone(convnet(), **{"classes": 5, "transform": TRANSFORM, **options})


def test_a_head_that_is_not_the_last_layer_is_refused():
    network = convnet(scale=nn.Softmax(dim=1))
    with pytest.raises(ValueError, match="'fc' is not the last layer"):
        backbone(network, classes=5, transform=TRANSFORM)
    with pytest.raises(ValueError, match=r"must give features \(batch, width\)"):
        backbone(nn.Sequential(nn.Conv2d(3, 4, 3)), classes=5, transform=TRANSFORM)


@pytest.mark.parametrize(
    ("given", "message"),
    (
        (torch.full((1, 3, 16, 16), -1.0), "standardises them itself"),
        (torch.full((1, 3, 16, 16), float("nan")), r"values in \[0, 1\], got nan"),
        (torch.zeros(1, 2, 16, 16), "also with a single channel"),
        (torch.zeros(2, 9), "they are of another one"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.long), "floating point"),
    ),
)
def test_images_that_it_cannot_take_are_refused(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        backbone(convnet(), classes=5, transform=TRANSFORM)(given)


def test_features_that_are_not_finite_are_refused(images):
    module = convnet()
    with torch.no_grad():
        module.stage2[0].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        backbone(module, classes=5, transform=TRANSFORM).extract(images)

"""Features on disk: computed once, resumed, never taken for others, and the source that they make."""

from __future__ import annotations

import json

import pytest
import torch

from lit_meta import MetaplasticModule, RecursiveReadout, backbone, fit_stream, scenario
from lit_meta.data import load_source
from lit_meta.data.features import FeatureStore, extract_features
from lit_meta.data.features.extract import print_progress
from lit_meta.data.sources.base import Source
from lit_meta.networks.backbones import Backbone
from tests.networks.test_backbone import TRANSFORM, convnet

ONE_FORM = {"form": "eager", "batch_size": 4, "shard": 8, "progress": None}


def images() -> Source:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    x = (torch.rand(30, 3, 12, 12, generator=generator) * 0.2 + y.reshape(-1, 1, 1, 1) * 0.3).clamp(0, 1)
    return Source("shades", x[:22], y[:22], x[22:], y[22:], ("dark", "grey", "light"), x[26:], y[26:])


def network(**options: object) -> Backbone:
    return backbone(convnet(), classes=3, transform=TRANSFORM, depths=3, statistics=("mean", "std"), **options)


def test_kept_features_are_those_of_the_network(tmp_path):
    source, net = images(), network()
    kept = extract_features(net, source, tmp_path, **ONE_FORM).source()
    assert torch.allclose(kept.train_x, net.extract(source.train_x), atol=1e-6)
    assert torch.allclose(kept.test_x, net.extract(source.test_x), atol=1e-6)
    assert torch.equal(kept.train_y, source.train_y)
    assert torch.equal(kept.held_out_x, kept.test_x[-4:])
    assert (kept.name, kept.classes) == ("features-shades", source.classes)
    only = extract_features(net, source, tmp_path, **ONE_FORM).source(["stage2/std", "last"])
    assert torch.equal(only.train_x, torch.cat([kept.train_x[:, :8], kept.train_x[:, -8:]], dim=1))


def test_a_stream_over_features_ends_with_the_weights_of_a_stream_over_images(tmp_path):
    source, heads = images(), []
    for data in (source, extract_features(network(), source, tmp_path, **ONE_FORM).source()):
        net = network()
        result = fit_stream(
            MetaplasticModule(net, rule=RecursiveReadout(ridge=1e-3)), scenario("split", source=data), accelerator="cpu"
        )
        assert result.average_accuracy > 0.9
        heads.append(net.head.weight.detach())
    assert torch.allclose(*heads, atol=1e-3)


def test_a_run_that_was_stopped_goes_on_with_the_shards_that_are_missing(tmp_path, monkeypatch):
    source, net, calls = images(), network(), []
    plain = Backbone.features_of

    def counted(self, prepared):
        calls.append(len(prepared))
        if len(calls) > 4:
            raise KeyboardInterrupt
        return plain(self, prepared)

    monkeypatch.setattr(Backbone, "features_of", counted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(net, source, tmp_path, **ONE_FORM)
    (folder,) = tmp_path.iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert sorted(before) == ["train-00000.safetensors"], "whole shards only"
    with pytest.raises(ValueError, match="3 of the 4 shards"):
        FeatureStore(folder).source()
    monkeypatch.setattr(Backbone, "features_of", plain)
    said: list[tuple[int, int]] = []
    store = extract_features(net, source, tmp_path, **{**ONE_FORM, "progress": lambda k, n, s: said.append((k, n))})
    assert said == [(16, 30), (22, 30), (30, 30)]
    assert (folder / "train-00000.safetensors").stat().st_mtime_ns == before["train-00000.safetensors"]
    assert torch.allclose(store.source().train_x, net.extract(source.train_x), atol=1e-6)
    monkeypatch.setattr(Backbone, "features_of", lambda *given: pytest.fail("everything is there"))
    extract_features(net, source, tmp_path, **ONE_FORM)


def test_other_weights_transform_or_data_are_other_features(tmp_path):
    source = images()
    more = Source("shades", source.train_x * 0.9, source.train_y, source.test_x, source.test_y, source.classes)
    other = convnet()
    with torch.no_grad():
        other.stage0[0].weight[0] *= 2
    for net, data in ((network(), source), (network(size=18), source), (network(), more)):
        extract_features(net, data, tmp_path, **ONE_FORM)
    changed = backbone(other, classes=3, transform=TRANSFORM, depths=3, statistics=("mean", "std"))
    extract_features(changed, source, tmp_path, **ONE_FORM)
    assert len(list(tmp_path.iterdir())) == 4


def test_float16_loses_little_and_says_what_it_cannot_hold(tmp_path):
    source, net = images(), network()
    wide = extract_features(net, source, tmp_path, **ONE_FORM).source()
    half = extract_features(net, source, tmp_path, dtype="float16", **ONE_FORM)
    assert half.dtype == torch.float16
    assert torch.allclose(half.source().train_x, wide.train_x, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="do not fit into float16"):
        half.write("train", 0, torch.full((8, net.width), 1e6), torch.zeros(8, dtype=torch.long))


def test_bad_stores_and_bad_requests_are_said_in_one_sentence(tmp_path):
    source, net = images(), network()
    store = extract_features(net, source, tmp_path, **ONE_FORM)
    with pytest.raises(KeyError, match="did you mean 'stage1/std'"):
        store.source(["stage1/sdt"])
    with pytest.raises(TypeError, match="features are those of a Backbone"):
        extract_features(convnet(), source, tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        extract_features(net, source, tmp_path, shard=0)
    with pytest.raises(FileNotFoundError, match="there are no features in"):
        FeatureStore(tmp_path / "nowhere")
    shard = store.path("test", 0)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        store.source()
    shard.write_bytes(store.path("train", 2).read_bytes())
    with pytest.raises(ValueError, match="is damaged"):
        store.source()
    shard.write_bytes(whole)
    described = json.loads((store.folder / "features.json").read_text())
    for change in ({"format": 9}, {"parts": {}}, {"dtype": "int4"}, {"samples": {"train": -1, "test": 2}}, {"more": 1}):
        (store.folder / "features.json").write_text(json.dumps({**described, **change}))
        with pytest.raises(ValueError, match="extract the features again"):
            FeatureStore(store.folder)
    flat = Source(
        "flat", torch.full((9, 3, 12, 12), 0.5), source.train_y[:9], source.test_x, source.test_y, source.classes
    )
    with pytest.raises(ValueError, match="constant"):
        extract_features(net, flat, tmp_path, **ONE_FORM).source()


def test_features_are_a_source_like_others(tmp_path):
    store = extract_features(network(), images(), tmp_path, **ONE_FORM)
    for spec in (f"features:{store.folder}", {"name": "features", "path": str(store.folder), "parts": ["last"]}):
        assert len(load_source(spec).train_y) == 22
    with pytest.raises(ValueError, match="either path"):
        load_source("features")
    with pytest.raises(KeyError, match="unknown set of features"):
        load_source("features:cifar10-heavy")
    benchmark = scenario("split", source={"name": "features", "path": str(store.folder)}, experiences=3)
    assert benchmark.input_shape == (network().width,)


def test_a_stranger_names_no_folder(tmp_path):
    from lit_meta.data.scenarios import scenario_for_seed

    store = extract_features(network(), images(), tmp_path, **ONE_FORM)
    with pytest.raises(ValueError, match="may not name a folder"):
        scenario_for_seed(
            {"name": "split", "source": {"name": "features", "path": str(store.folder)}}, 0, trusted=False
        )


def test_the_computed_source_says_what_it_needs(tmp_path):
    spec = {"name": "features", "of": "digits", "folder": str(tmp_path)}
    options = {"source": "torchvision:resnet18", "pretrained": False, "size": 32}
    with pytest.raises(ValueError, match="either path"):
        load_source(spec)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        load_source({**spec, "backbone": {**options, "depth": 3}})


def test_progress_tells_how_much_is_left(capsys):
    print_progress(500, 2000, 50.0)
    print_progress(2000, 2000, 200.0)
    lines = capsys.readouterr().err.split("\r")[1:]
    assert lines[0].strip() == "features of 500 of 2,000 images (10 a second, 2 min left)"
    assert lines[1].endswith("\n")


def test_the_features_that_come_with_the_package_are_made_by_a_committed_script(tmp_path):
    from docs.tables.shipped_features import NAME, make

    shipped = load_source(f"features:{NAME}")
    assert (shipped.train_x.shape, shipped.test_x.shape) == ((1000, 1280), (500, 1280))
    store = extract_features(network(), images(), tmp_path, **ONE_FORM)
    small = make(store, tmp_path / "small", train=9, test=3)
    assert small.description.parts == {"last": 8}
    assert torch.allclose(small.source().train_x, store.source(["last"]).train_x[:9], rtol=1e-3)
    assert torch.equal(small.source().test_y, store.source().test_y[:3])

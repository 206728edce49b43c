"""Entries in the form of other programs give the same outputs there."""

from __future__ import annotations

import pytest
import torch

from lit_meta import zoo
from lit_meta.cli import main
from lit_meta.data import load_source
from lit_meta.networks import build_network
from lit_meta.zoo import exporting

ANN = "mlp.ewc_split-digits"


@pytest.fixture(scope="module")
def inputs():
    return load_source("digits").test_x[:7]


@pytest.mark.filterwarnings("ignore")  # Of the exporter's own libraries.
def test_a_program_of_torch_export_gives_the_same_outputs(tmp_path, inputs, capsys):
    assert main(["zoo", "export", ANN, str(tmp_path), "--format", "torch.export"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{ANN}.pt2"]
    program = torch.export.load(tmp_path / f"{ANN}.pt2").module()
    with torch.no_grad():
        assert torch.allclose(program(inputs), zoo.load(ANN)(inputs), atol=1e-5)
    with pytest.raises(FileExistsError, match="there already"):
        zoo.export(ANN, tmp_path, format="torch.export")


@pytest.mark.filterwarnings("ignore")  # Of the exporter's own libraries.
def test_onnx_runtime_gives_the_same_outputs_for_any_batch(tmp_path, inputs):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = zoo.export(ANN, tmp_path, format="onnx")
    assert [p.name for p in tmp_path.iterdir()] == [f"{ANN}.onnx"]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (inputs, inputs[:1]):
        (outputs,) = session.run(None, {"input": batch.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(outputs), zoo.load(ANN)(batch), atol=1e-4)


def spiking():
    return build_network(
        "lif-mlp",
        inputs=64,
        hidden=[30],
        classes=10,
        neuron={"steps": 12, "decay": 0.7, "threshold": 0.6, "current": "identity"},
        weight_gain=3.0,
        bias=True,
        seed=0,
    ).eval()


def convolutional(**options):
    return build_network(
        "lif-convnet",
        input_shape=(1, 8, 8),
        channels=[6, 8],
        kernel=3,
        hidden=[20],
        classes=10,
        steps=12,
        decay=0.7,
        weight_gain=3.0,
        seed=0,
        **options,
    ).eval()


@pytest.mark.parametrize("make", (spiking, convolutional, lambda: convolutional(bias=False)))
@pytest.mark.filterwarnings("ignore")  # Of snnTorch's reader.
def test_snntorch_fires_the_same_spikes(tmp_path, inputs, capsys, make):
    nir, import_nir = pytest.importorskip("nir"), pytest.importorskip("snntorch.import_nir")
    from lit_meta.functional.spiking import encoding_thresholds, threshold_encode
    from lit_meta.zoo.nir_graph import nir_graph

    network = make()
    nir.write(tmp_path / "network.nir", nir_graph(network))
    thresholds = encoding_thresholds(network.input_shape, 12, seed=network.encoding_seed, start=0, low=0.0, high=1.0)
    spikes = threshold_encode(inputs.reshape(-1, *network.input_shape), thresholds)
    counts = torch.zeros(7, 10)
    with torch.no_grad():
        rates = network(inputs)
        for sample in range(7):  # Their reader flattens the batch, too.
            theirs, state = import_nir.import_from_nir(nir.read(tmp_path / "network.nir")), None
            for step in spikes:
                output, state = theirs(step[sample : sample + 1], state)
                counts[sample] += output.flatten()
    assert 0.02 < float(rates.mean()) < 0.98, "silent or saturated neurons would prove nothing"
    assert torch.equal(counts, (rates * 12).round())


@pytest.mark.parametrize(
    ("name", "message"),
    (
        (ANN, "spiking networks of leaky neurons"),
        ("spiking-patch-net.recursive-readout_split-digits", "no division of patches by their contrast"),
    ),
)
def test_what_nir_does_not_know_is_named(tmp_path, name, message):
    pytest.importorskip("nir")
    with pytest.raises(ValueError, match=message):
        zoo.export(name, tmp_path, format="nir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "message"),
    (
        (lambda: convolutional(pooling="max"), r"max pooling \(use pooling='average'\)"),
        (lambda: convolutional(current="sigmoid"), "a logistic function of the current"),
    ),
)
def test_a_part_that_nir_does_not_know_is_named(network, message):
    pytest.importorskip("nir")
    from lit_meta.zoo.nir_graph import nir_graph

    with pytest.raises(ValueError, match=f"LIFConvNet has what NIR does not know: {message}"):
        nir_graph(network())


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"lit-meta\[export\]"):
        zoo.export(ANN, tmp_path, format="nir")
    with pytest.raises(ValueError, match="format must be one of"):
        zoo.export(ANN, tmp_path, format="pickle")


def test_a_program_is_compared_without_a_gradient(tmp_path, monkeypatch):
    compare, compared = exporting._compare, []
    monkeypatch.setattr(exporting, "_compare", lambda *outputs: compared.append(outputs) or compare(*outputs))
    zoo.export(ANN, tmp_path, format="torch.export")
    assert not any(output.requires_grad for output in compared[0])


def test_what_cannot_be_written_is_said_before_the_network_is_built(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for form in ("safetensors", "torch.export"):
        assert main(["zoo", "export", ANN, str(tmp_path / "file" / "deep"), "--format", form]) == 1
        assert "a file, not a folder" in capsys.readouterr().err.replace("\n", " ")

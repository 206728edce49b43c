"""Callbacks that watch: what they record is what happened, and learning does not notice them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_meta import EWC, MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import ContinualEvaluation, WeightChange
from lit_meta.callbacks.continual_evaluation import read_continual_evaluation
from lit_meta.callbacks.weight_change import read_weight_change
from lit_meta.evaluation.activations import hidden_activity, spike_raster
from lit_meta.functional.stability import end_matrix, stability_gap
from lit_meta.functional.weight_change import change_map, changed_fraction
from lit_meta.networks import build_network
from lit_meta.streams.from_scratch import fresh_accuracies


def module(seed: int = 0) -> MetaplasticModule:
    network = build_network("mlp", inputs=64, hidden=[10], classes=10, activation="relu", output="identity", seed=seed)
    return MetaplasticModule(network, rule=EWC(strength=1.0))


@pytest.fixture(scope="module")
def benchmark() -> object:
    return scenario("split-digits", experiences=5, seed=1)


class StopAfter(Exception):
    pass


def test_recorders_tell_what_happened_and_change_nothing(benchmark: object, tmp_path: Path) -> None:
    alone = module()
    expected = fit_stream(alone, benchmark, accelerator="cpu")
    watched = module()
    initial = {name: p.detach().clone() for name, p in watched.network.named_parameters()}
    evaluation = ContinualEvaluation(benchmark.test_stream, every_n_steps=1, folder=tmp_path)  # type: ignore[attr-defined]
    change = WeightChange(threshold=0.05, folder=tmp_path)
    snapshots = [{f"network.{name}": t for name, t in initial.items()}]

    def keep(index: int, row: torch.Tensor) -> None:
        snapshots.append({f"network.{name}": p.detach().clone() for name, p in watched.network.named_parameters()})

    found = fit_stream(watched, benchmark, callbacks=[evaluation, change], on_experience=keep, accelerator="cpu")
    assert torch.equal(found.accuracy_matrix, expected.accuracy_matrix)
    for name, p in alone.network.named_parameters():
        assert torch.equal(p, dict(watched.network.named_parameters())[name])

    torch.testing.assert_close(end_matrix(evaluation.trace), found.accuracy_matrix)
    assert [steps[-1] for steps in evaluation.steps] == [len(steps) for steps in evaluation.steps]
    assert sum(map(len, evaluation.steps)) == found.cost["steps"]
    assert 0 <= stability_gap(evaluation.trace) <= 1

    for i in range(5):
        for name in ("network.layers.0", "network.layers.1"):
            before, after = (s[f"{name}.weight"] for s in snapshots[i : i + 2])
            expected_share = changed_fraction(before, after, threshold=0.05)
            assert change.records[i][name]["changed"] == pytest.approx(float(expected_share))
            torch.testing.assert_close(change.maps[i][name], change_map(before, after))

    kept, maps = read_weight_change(tmp_path) or ([], [])
    assert kept == change.records
    assert torch.equal(maps[4]["network.layers.1"], change.maps[4]["network.layers.1"])
    steps, rows = read_continual_evaluation(tmp_path) or ([], [])
    assert steps == evaluation.steps
    torch.testing.assert_close(rows[2], evaluation.rows[2], rtol=0, atol=1e-6)


def test_records_go_on_where_a_stream_is_resumed(benchmark: object, tmp_path: Path) -> None:
    def callbacks(folder: Path) -> tuple[ContinualEvaluation, WeightChange]:
        tests = benchmark.test_stream  # type: ignore[attr-defined]
        return ContinualEvaluation(tests, every_n_steps=2, folder=folder), WeightChange(folder=folder)

    whole = callbacks(tmp_path / "whole")
    fit_stream(module(), benchmark, callbacks=whole, accelerator="cpu")

    def stop(index: int, row: torch.Tensor) -> None:
        if index == 1:
            raise StopAfter

    run = tmp_path / "run"
    with pytest.raises(StopAfter):
        fit_stream(module(), benchmark, callbacks=callbacks(run), run_dir=run, on_experience=stop, accelerator="cpu")
    resumed = callbacks(run)
    fit_stream(module(), benchmark, callbacks=resumed, run_dir=run, resume=True, accelerator="cpu")
    assert resumed[1].records == whole[1].records
    assert resumed[0].steps == whole[0].steps
    torch.testing.assert_close(resumed[0].trace, whole[0].trace, equal_nan=True, rtol=0, atol=1e-6)


def test_a_stream_that_began_without_records_is_not_resumed_with_them(benchmark: object, tmp_path: Path) -> None:
    def stop(index: int, row: torch.Tensor) -> None:
        raise StopAfter

    with pytest.raises(StopAfter):
        fit_stream(module(), benchmark, run_dir=tmp_path, on_experience=stop, accelerator="cpu")
    for callback in (
        WeightChange(),
        WeightChange(folder=tmp_path / "other"),
        ContinualEvaluation(benchmark.test_stream, every_n_steps=1),  # type: ignore[attr-defined]
    ):
        with pytest.raises(ValueError, match=r"only one of the two has callbacks\.0"):
            fit_stream(module(), benchmark, run_dir=tmp_path, resume=True, callbacks=[callback], accelerator="cpu")


def test_bad_arguments_are_refused(benchmark: object) -> None:
    tests = benchmark.test_stream  # type: ignore[attr-defined]
    for make, message in (
        (lambda: WeightChange(threshold=-1.0), "at least 0"),
        (lambda: WeightChange(map_size=(0, 4)), "at least one row"),
        (lambda: ContinualEvaluation(tests, every_n_steps=0), "whole number of at least 1"),
        (lambda: ContinualEvaluation([], every_n_steps=1), "empty stream"),
        (lambda: ContinualEvaluation(tests, every_n_steps=1, protocol="other"), "protocol must be one of"),
        (lambda: ContinualEvaluation(tests, every_n_steps=1).trace, "no experience"),
        (lambda: fresh_accuracies(module, benchmark, resume=True), "do not apply"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_fresh_networks_are_each_trained_on_one_experience_alone(benchmark: object) -> None:
    made: list[MetaplasticModule] = []

    def make() -> MetaplasticModule:
        made.append(module())
        return made[-1]

    found = fresh_accuracies(make, benchmark, accelerator="cpu")
    assert found.shape == (5,)
    assert len(made) == 5
    # The first experience of the stream is learned by a fresh network too: the same bits.
    stream = module()
    first = fit_stream(stream, benchmark, accelerator="cpu").accuracy_matrix[0, 0]
    assert found[0] == first


def test_hidden_activity_is_what_the_next_layer_receives() -> None:
    network = build_network("mlp", inputs=6, hidden=[5, 4], classes=3, activation="relu", seed=0)
    x = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))
    found = hidden_activity(network, x)
    first = torch.relu(network.layers[0](x))
    torch.testing.assert_close(found["layers.1"], first.detach())
    torch.testing.assert_close(found["layers.2"], torch.relu(network.layers[1](first)).detach())
    assert list(found) == ["layers.1", "layers.2"]
    assert network.training


@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
@pytest.mark.parametrize("hidden", ((9, 8), ()))
def test_a_raster_holds_the_spikes_of_the_forward_pass(encoding: str, hidden: tuple[int, ...]) -> None:
    network = build_network(
        "lif-mlp", inputs=6, hidden=hidden, classes=3, steps=12, encoding=encoding, weight_gain=4.0, seed=0
    ).eval()
    sample = torch.rand(6, generator=torch.Generator().manual_seed(1))
    raster = spike_raster(network, sample)
    with torch.no_grad():
        torch.testing.assert_close(raster["output"].mean(0), network(sample[None])[0])
    network.record_spikes = True
    network(sample[None])
    names = ["input", *(f"hidden {i + 1}" for i in range(len(hidden)))]
    counts = {name: int(raster[name].sum()) for name in names if name in raster}
    assert list(counts.values()) == [int(n) for n in network.spike_counts.values()]
    assert all(spikes.shape[0] == 12 for spikes in raster.values())
    # Firing rates are the activity of the hidden units.
    for name, activity in hidden_activity(network, sample[None]).items():
        torch.testing.assert_close(raster[f"hidden {name.split('.')[1]}"].mean(0), activity[0])


def test_a_raster_of_a_network_without_spikes_is_refused() -> None:
    with pytest.raises(TypeError, match="spiking network"):
        spike_raster(build_network("mlp", inputs=4, hidden=[], classes=2), torch.rand(4))  # type: ignore[arg-type]

"""Accuracy before learning, against predictions made by hand."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import OnlineAccuracy
from lit_meta.evaluation.activations import hidden_activity
from lit_meta.experiments.run import Experiment, run_experiment
from lit_meta.functional.plasticity import dormant_fraction, effective_rank

SILENT = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}


def network_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_predictions_are_those_made_before_each_step():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].argmax(1)
    online = OnlineAccuracy()
    module = MetaplasticModule(network_of(), optimizer={"name": "sgd", "lr": 0.3})
    L.Trainer(**SILENT, callbacks=[online]).fit(module, DataLoader(TensorDataset(x, y), batch_size=1))
    network = network_of()
    optimizer, right = torch.optim.SGD(network.parameters(), lr=0.3), 0
    for i in range(30):
        output = network(x[i : i + 1])
        right += int(output.argmax() == y[i])
        optimizer.zero_grad()
        F.cross_entropy(output, y[i : i + 1]).backward()
        optimizer.step()
    assert online.accuracy == [pytest.approx(right / 30)]
    assert 0 < right < 30


def test_further_draws_of_a_rule_do_not_count():
    x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3
    records = []
    for draws in (1, 4):
        online = OnlineAccuracy()
        module = MetaplasticModule(network_of(), rule=BGD(deviation=0.5, draws=draws))
        L.Trainer(**SILENT, callbacks=[online]).fit(module, DataLoader(TensorDataset(x, y), batch_size=12))
        records.append(online.accuracy)
    assert records[0] == records[1]


def test_dormant_units_and_rank_are_those_of_the_network_after_each_experience():
    benchmark = scenario("permuted-digits", experiences=2)
    online = OnlineAccuracy(benchmark.test_stream, samples=50)
    module = MetaplasticModule(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)), optimizer={"name": "sgd", "lr": 0.1}
    )
    fit_stream(module, benchmark, callbacks=[online], accelerator="cpu", batch_size=16)
    x = torch.stack([benchmark.test_stream[1].dataset[i][0] for i in range(50)])
    (layer,) = hidden_activity(module.network, x).values()
    assert online.dormant[1] == pytest.approx(float(dormant_fraction([layer])))
    assert online.rank[1] == pytest.approx(float(effective_rank(layer)), rel=1e-5)
    assert len(online.accuracy) == len(online.dormant) == len(online.rank) == 2


def test_an_experiment_records_it_and_a_resumed_one_the_same(tmp_path):
    experiment = Experiment(
        name="small",
        scenario={"name": "permuted-digits", "experiences": 3, "samples": 60, "test_samples": 20},
        network={"name": "mlp", "inputs": 64, "hidden": [8], "classes": 10},
        batch_size=5,
        seeds=[0, 1],
        online=True,
    )
    report = run_experiment(experiment, tmp_path / "run", learners=["naive", "joint"], accelerator="cpu")
    record = report["naive"]["online"]
    assert [len(values) for values in record.values()] == [3, 3, 3]
    assert report["naive"]["online_accuracy"]["mean"] == pytest.approx(sum(record["accuracy"]) / 3, abs=1e-6)
    assert "online" not in report["joint"]
    again = run_experiment(experiment, tmp_path / "run", learners=["naive"], accelerator="cpu", resume=True)
    for quantity, values in again["naive"]["online"].items():
        assert values == pytest.approx(record[quantity], abs=2e-6)  # Files hold six digits.


def test_a_resumed_stream_without_a_record_is_refused(tmp_path):
    benchmark = scenario("permuted-digits", experiences=2)
    torch.manual_seed(0)
    module = MetaplasticModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    options = {"run_dir": tmp_path / "run", "accelerator": "cpu", "batch_size": 256}

    class Stop(Exception):
        pass

    def stop(index, row):
        raise Stop

    with pytest.raises(Stop):
        fit_stream(module, benchmark, on_experience=stop, **options)
    torch.manual_seed(0)
    again = MetaplasticModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(ValueError, match="only one of the two has callbacks"):
        fit_stream(again, benchmark, callbacks=[OnlineAccuracy()], resume=True, **options)


def test_outputs_that_are_no_scores_of_classes_are_refused():
    x = torch.randn(6, 4)
    module = MetaplasticModule(nn.Linear(4, 4), loss=F.mse_loss)
    with pytest.raises(ValueError, match="a label for each"):
        L.Trainer(**SILENT, callbacks=[OnlineAccuracy()]).fit(module, DataLoader(TensorDataset(x, x), batch_size=3))


@pytest.mark.parametrize("samples", (1, True, 2.5))
def test_too_few_samples_are_refused(samples):
    with pytest.raises(ValueError, match="at least 2"):
        OnlineAccuracy(samples=samples)

"""Callbacks that take part in a stream by a method of the protocol, whatever class they are of."""

from __future__ import annotations

import json

import lightning as L
import pytest
import torch

from lit_meta import CostLedger, MetaplasticModule, XdG, fit_stream, scenario
from lit_meta.callbacks import ContinualEvaluation
from lit_meta.cost.totals import Cost
from lit_meta.networks import build_network
from lit_meta.report.figure_log import FigureLog
from lit_meta.streams.cost import StreamCost
from lit_meta.streams.from_scratch import fresh_accuracies


def module(rule=None):
    return MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10, seed=1), rule=rule)


class Counter(L.Callback):
    """Counts a cost of its own; knows nothing of the package's ledger."""

    def __init__(self) -> None:
        self.fits = 0

    def on_fit_end(self, *others) -> None:
        self.fits += 1

    def experience_cost(self) -> Cost:
        return Cost(forward_macs=10 * self.fits, saved_bytes=100 - self.fits, published_operations=None, steps=999)


@pytest.fixture(scope="module")
def stream():
    return scenario("split-digits", experiences=2)


def test_any_callback_may_count_the_cost_of_a_stream(stream):
    result = fit_stream(module(), stream, accelerator="cpu", callbacks=[Counter()])
    assert (result.cost["forward_macs"], result.cost["saved_bytes"]) == (30, 99)
    assert result.cost["steps"] == result.cost.steps < 999, "what the stream itself knows is not taken from a callback"
    assert "published_operations" not in result.cost
    assert json.loads(json.dumps(result.to_dict()))["cost"] == dict(result.cost)


def test_two_that_count_are_refused(stream):
    with pytest.raises(ValueError, match="CostLedger and Counter both count"):
        fit_stream(module(), stream, accelerator="cpu", callbacks=[CostLedger(), Counter()])


def test_a_stream_is_counted_as_a_whole_or_not_at_all(stream, tmp_path):
    class Crash(Exception):
        pass

    def crash(index, row):
        raise Crash

    for folder, before, after in ((tmp_path / "a", [], [Counter()]), (tmp_path / "b", [Counter()], [])):
        with pytest.raises(Crash):
            fit_stream(module(), stream, accelerator="cpu", run_dir=folder, on_experience=crash, callbacks=before)
        with pytest.raises(ValueError, match=r"holds another run: only one of the two has callbacks\.0"):
            fit_stream(module(), stream, accelerator="cpu", run_dir=folder, resume=True, callbacks=after)
        resumed = fit_stream(module(), stream, accelerator="cpu", run_dir=folder, resume=True, callbacks=before)
        read = fit_stream(module(), stream, accelerator="cpu", run_dir=folder, resume=True, callbacks=before)
        assert dict(read.cost) == dict(resumed.cost)


@pytest.mark.parametrize("callback", (lambda tests: ContinualEvaluation(tests, every_n_steps=1), FigureLog))
@pytest.mark.parametrize("told_by", ("rule", "benchmark"))
def test_callbacks_that_test_without_tasks_are_refused_where_tasks_are_told(callback, told_by, stream):
    if told_by == "benchmark":
        stream, rule = scenario("split-digits", experiences=2, form="task"), None
    else:
        rule = XdG()
    learner = module(rule)
    before = [parameter.detach().clone() for parameter in learner.parameters()]
    with pytest.raises(ValueError, match="the task of a test sample"):
        fit_stream(learner, stream, accelerator="cpu", callbacks=[callback(stream.test_stream)])
    assert all(torch.equal(p, b) for p, b in zip(learner.parameters(), before, strict=True))


def test_a_cost_is_a_mapping_that_files_give_back():
    cost = StreamCost()
    assert dict(cost) == {"steps": 0, "samples": 0, "seconds": 0.0}
    cost.add(steps=3, samples=9, seconds=0.5, counted=Cost(forward_macs=7, saved_bytes=5, published_operations=2.0))
    cost.add(steps=1, samples=2, seconds=0.25, counted=Cost(forward_macs=1, saved_bytes=9, published_operations=3.0))
    cost.state_bytes = 12
    assert (cost["steps"], cost["samples"], cost["seconds"], cost["state_bytes"]) == (4, 11, 0.75, 12)
    assert (cost["forward_macs"], cost["saved_bytes"], cost["published_operations"]) == (8, 9, 5.0)
    again = StreamCost.from_dict(json.loads(json.dumps(cost.to_dict())))
    assert again == cost == cost.to_dict()
    assert list(again) == list(cost)
    again.add(steps=0, samples=0, seconds=0.0, counted=Cost(forward_macs=1))
    assert "published_operations" not in again, "a sum with something unknown is unknown"
    with pytest.raises(KeyError):
        cost["energy"]
    with pytest.raises(ValueError, match="no quantity 'joules'"):
        StreamCost.from_dict({"steps": 1, "joules": 2.0})


def test_adding_leaves_the_callbacks_own_record_as_it_was():
    first, cost = Cost(forward_macs=7), StreamCost()
    cost.add(steps=1, samples=1, seconds=0.0, counted=first)
    cost.add(steps=1, samples=1, seconds=0.0, counted=Cost(forward_macs=1))
    assert (first.forward_macs, cost["forward_macs"]) == (7, 8)


def test_fresh_networks_of_a_stream_that_tells_tasks_are_told_them_too():
    told = scenario("split-digits", experiences=5, form="task")
    untold = scenario("split-digits", experiences=5)
    one, other = (fresh_accuracies(module, benchmark, accelerator="cpu", max_epochs=1) for benchmark in (told, untold))
    # Two of ten classes are open: chance is a half, not a tenth.
    assert float(one.min()) > 0.4
    assert not torch.equal(one, other)

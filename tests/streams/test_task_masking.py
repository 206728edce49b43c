"""Streams that tell the task of every sample: only the outputs of its own classes are open."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
import pytest
import torch
from torch import nn

from docs.tables.results import is_given_tasks
from lit_meta import EWC, MAS, NACA, SI, MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import ContinualEvaluation
from lit_meta.data import experience_tensors, joint
from lit_meta.experiments.run import Experiment
from lit_meta.functional.fisher import diagonal_fisher
from lit_meta.streams.task_masking import TaskOutputs, only_classes


def module(rule=None, *, loss="cross_entropy", outputs=10):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, outputs))
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    return MetaplasticModule(network, rule=rule, loss=loss, optimizer=optimizer)


@pytest.fixture(scope="module")
def told():
    return scenario("split-digits", experiences=5, class_order=range(10), form="task")


@pytest.fixture(scope="module")
def untold():
    return scenario("split-digits", experiences=5, class_order=range(10))


def test_a_closed_output_has_no_probability_and_no_gradient():
    network = nn.Linear(3, 4)
    x, allowed = torch.ones(2, 3), torch.tensor([[True, True, False, False], [False, False, True, True]])
    plain = network(x)
    with only_classes(network, allowed):
        outputs = network(x)
    assert torch.equal(outputs.softmax(1)[0, :2], plain[0, :2].softmax(0))
    assert torch.equal(outputs.softmax(1)[0, 2:], torch.zeros(2))
    assert torch.equal(outputs.softmax(1)[1, 2:], plain[1, 2:].softmax(0))
    nn.functional.cross_entropy(outputs[:1], torch.tensor([0])).backward()
    assert bool((network.weight.grad[:2] != 0).all())
    assert not bool(network.weight.grad[2:].any())
    assert torch.equal(network(x), plain), "the outputs stayed closed"


def test_outputs_are_open_again_after_an_error():
    network = nn.Linear(3, 4)
    three, message = torch.ones(3, dtype=torch.bool), "has 3 classes, but the network 4 outputs"
    with pytest.raises(ValueError, match=message), only_classes(network, three):
        network(torch.ones(1, 3))
    assert not network._forward_hooks


def test_a_told_experience_learns_its_own_outputs_only(told):
    learner = module()
    head = learner.network[3]
    before = head.weight.detach().clone()
    changed = []

    def look(index, row):
        nonlocal before
        changed.append((head.weight.detach() != before).any(1).nonzero().flatten().tolist())
        before = head.weight.detach().clone()

    fit_stream(learner, told, accelerator="cpu", on_experience=look)
    assert changed == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_sample_is_tested_among_the_classes_of_its_experience(told):
    learner = module()
    result = fit_stream(learner, told, batch_size=32, max_epochs=3, accelerator="cpu")
    with torch.no_grad():
        for i, experience in enumerate(told.test_stream):
            x, y = experience_tensors(experience)
            own = learner.network(x)[:, 2 * i : 2 * i + 2]
            assert float((own.argmax(1) + 2 * i == y).float().mean()) == pytest.approx(
                float(result.accuracy_matrix[-1, i])
            )
    assert 0.3 < float(result.initial.mean()) < 0.7  # Chance is one half, and not one tenth.
    assert float(result.accuracy_matrix.diagonal().min()) > 0.9


def test_being_told_makes_the_task_easier_and_the_joint_bound_is_told_too(told, untold):
    arguments = {"batch_size": 32, "max_epochs": 3, "accelerator": "cpu"}
    found = {
        name: fit_stream(module(), benchmark, **arguments).average_accuracy
        for name, benchmark in (("told", told), ("untold", untold), ("joint", joint(told)))
    }
    assert found["told"] > found["untold"] + 0.3
    one_batch = joint(told)
    assert one_batch.form == "task"
    learner = module()
    result = fit_stream(learner, one_batch, **arguments)
    plain = module()
    fit_stream(plain, joint(untold), **arguments)
    for one, two in zip(learner.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two), "the joint experience has all classes, and yet some outputs were closed"
    assert result.average_accuracy == found["joint"] > 0.95


@pytest.mark.parametrize(
    "rule", (EWC(strength=100.0), SI(strength=5.0), MAS(strength=1.0)), ids=lambda r: type(r).__name__
)
def test_rules_find_the_outputs_of_other_tasks_unimportant(rule, told):
    learner = module(rule.clone())
    closed = []

    def look(index, row):
        if index == 0:
            importance = learner.plasticity.rules[0].state["importance"]
            closed.append((importance["3.weight"][2:].abs().max(), importance["3.weight"][:2].abs().max()))

    fit_stream(learner, told, accelerator="cpu", on_experience=look)
    others, own = closed[0]
    assert float(others) == 0.0 < float(own)


def test_the_fisher_information_is_that_of_the_open_outputs(told):
    learner = module(EWC(strength=1.0))
    seen = []
    x, y = experience_tensors(told.train_stream[0])

    def look(index, row):
        if index == 0:
            own = nn.Sequential(*learner.network[:3], nn.Linear(20, 2))
            own.load_state_dict({n: p[:2] if n[0] == "3" else p for n, p in learner.network.state_dict().items()})
            seen.append(diagonal_fisher(own, x, y))
            seen.append({n: t.clone() for n, t in learner.plasticity.rules[0].state["importance"].items()})

    fit_stream(learner, told, accelerator="cpu", on_experience=look)
    torch.testing.assert_close(seen[1]["1.weight"], seen[0]["1.weight"], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(seen[1]["3.weight"][:2], seen[0]["3.weight"], rtol=1e-4, atol=1e-9)


def test_a_run_that_is_told_goes_on_to_the_same_bits(told, tmp_path):
    class Crash(Exception):
        pass

    def crash(index, row):
        if index == 2:
            raise Crash

    whole, part = module(EWC(strength=10.0)), module(EWC(strength=10.0))
    expected = fit_stream(whole, told, accelerator="cpu")
    with pytest.raises(Crash):
        fit_stream(part, told, accelerator="cpu", run_dir=tmp_path, on_experience=crash)
    assert not part.network._forward_hooks
    part = module(EWC(strength=10.0))
    found = fit_stream(part, told, accelerator="cpu", run_dir=tmp_path, resume=True)
    assert torch.equal(found.accuracy_matrix, expected.accuracy_matrix)
    for one, two in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("learner", "error", "message"),
    (
        (L.LightningModule(), TypeError, "outputs of a MetaplasticModule's network, got LightningModule"),
        (module(loss="mse"), ValueError, "cross_entropy"),
        (module(NACA()), ValueError, "without local errors"),
    ),
)
def test_what_cannot_be_told_is_refused(learner, error, message):
    with pytest.raises(error, match=message):
        TaskOutputs(learner, train=[[0]], test=[[0]], classes=10)


def test_evaluation_within_experiences_is_refused(told):
    evaluation = ContinualEvaluation(told.test_stream, every_n_steps=5)
    with pytest.raises(ValueError, match="cannot provide the task"):
        fit_stream(module(), told, callbacks=[evaluation], accelerator="cpu")


def test_an_experiment_that_is_told_is_not_tested_by_batching():
    experiment = Experiment(
        name="told", scenario={"name": "split-digits", "experiences": 5, "form": "task"}, network={"name": "mlp"}
    )
    assert experiment.tasks_told
    with pytest.raises(ValueError, match="without the task of each sample"):
        replace(experiment, batching=True)


def test_the_table_of_results_says_that_tasks_are_told(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    for form in ("class", "domain", "task"):
        (tmp_path / "experiment" / f"{form}.yaml").write_text(f"scenario: {{name: split-digits, form: {form}}}\n")
    monkeypatch.setattr("docs.tables.results.configs_folder", lambda: tmp_path)
    assert [is_given_tasks(form) for form in ("class", "domain", "task")] == [False, False, True]

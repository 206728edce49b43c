"""XdG: gates of tasks in learning and testing, through every way that a task reaches the rule."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, OWM, MetaplasticityPlugin, MetaplasticModule, Session, XdG, fit_stream, scenario
from lit_meta.evaluation.accuracy import accuracy_of, predict
from lit_meta.networks import LIFMLP, MLP, ConvNet
from tests.rules import drivers


def gated_by_hand(network, gates, x):
    h = torch.tanh(network[0](x)) * gates[0]
    return network[4](torch.tanh(network[2](h)) * gates[1])


def learn(session, data, lr=0.1, steps=3):
    for x, y in data:
        optimizer = torch.optim.SGD(session.network.parameters(), lr=lr, momentum=0.9)
        with session.experience([(x, y)]):
            for _ in range(steps):
                with session.step(x, y, optimizer):
                    F.cross_entropy(session.network(x), y).backward()


def test_hidden_units_are_multiplied_by_the_tasks_gates(make_network, two_experiences):
    network, rule = make_network(), XdG(gated=0.5)
    x = two_experiences[0][0]
    for task in (0, 3):
        gates = [rule.gates("2", 12, task), rule.gates("4", 10, task)]
        expected = gated_by_hand(make_network(), gates, x)
        with rule.in_task(network, task):
            torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(("gated", "units", "closed"), ((0.8, 10, 8), (0.5, 12, 6), (0.0, 7, 0), (0.8, 1000, 800)))
def test_the_share_of_closed_units_is_exact_and_tasks_differ(gated, units, closed):
    gates = torch.stack([XdG(gated=gated).gates("2", units, task) for task in range(20)])
    assert ((gates == 0).sum(1) == closed).all()
    assert set(gates.unique().tolist()) <= {0.0, 1.0}
    if closed:
        assert len(gates.unique(dim=0)) > 10
        assert not torch.equal(gates[0], XdG(gated=gated, seed=1).gates("2", units, 0))


def test_learning_is_that_of_the_gated_network(make_network, two_experiences):
    network, reference = make_network(), make_network()
    rule = XdG(gated=0.5)
    learn(Session(network, rule), two_experiences)
    for task, (x, y) in enumerate(two_experiences):
        optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
        gates = [rule.gates("2", 12, task), rule.gates("4", 10, task)]
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(gated_by_hand(reference, gates, x), y).backward()
            optimizer.step()
    for one, two in zip(network.parameters(), reference.parameters(), strict=True):
        assert torch.equal(one, two)


def test_synapses_of_closed_units_do_not_learn(make_network, two_experiences):
    network, rule = make_network(), XdG(gated=0.5)
    before = copy.deepcopy(network)
    learn(Session(network, rule), two_experiences[:1])
    closed = rule.gates("2", 12, 0) == 0
    assert torch.equal(network[0].weight[closed], before[0].weight[closed])
    assert torch.equal(network[2].weight[:, closed], before[2].weight[:, closed])
    assert not torch.equal(network[0].weight[~closed], before[0].weight[~closed])


def test_nothing_gated_is_plain_training(make_network, two_experiences):
    weights = [
        drivers.weights_after(drivers.plain_loop, make_network(), rule, two_experiences)
        for rule in (XdG(gated=0.0), EWC(strength=0.0))
    ]
    assert torch.equal(*weights)


def test_each_sample_is_gated_by_its_own_task(make_network, two_experiences):
    network, rule = make_network(), XdG(gated=0.5)
    x = two_experiences[0][0][:6]
    tasks = torch.tensor([2, 0, 1, 0, 2, 5])
    with rule.in_task(network, tasks):
        together = network(x)
    for i, task in enumerate(tasks.tolist()):
        with rule.in_task(network, task):
            torch.testing.assert_close(network(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize(
    ("network", "shape"),
    (
        (ConvNet((2, 8, 8), channels=(4, 6), kernel=3, hidden=(10,), classes=3, seed=0), (5, 2, 8, 8)),
        (LIFMLP(8, [12, 12], 3, steps=7, steps_at_once=4, weight_gain=4.0, seed=0), (5, 8)),
    ),
)
def test_convolutions_and_spiking_networks_are_gated_per_sample(network, shape):
    rule = XdG(gated=0.5)
    network.eval()
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    tasks = torch.tensor([2, 0, 1, 0, 2])
    with rule.in_task(network, tasks):
        together = network(x)
    alone = []
    for i, task in enumerate(tasks.tolist()):
        with rule.in_task(network, task):
            alone.append(network(x[i : i + 1]))
    torch.testing.assert_close(torch.cat(alone), together)
    rule.detach()
    assert not torch.allclose(network(x), together)


def test_without_a_task_there_is_no_answer(make_network, two_experiences):
    network, rule = make_network(), XdG()
    x = two_experiences[0][0]
    learn(Session(network, rule), two_experiences)
    with pytest.raises(RuntimeError, match="needs the task of every sample"):
        network(x)
    with rule.in_task(network, 0):
        network(x)
    with pytest.raises(RuntimeError, match="run the network inside"):
        network.eval()(x)
    rule.detach()
    network(x)


def test_an_abandoned_experience_leaves_no_task_behind(make_network, two_experiences):
    network, rule = make_network(), XdG()
    session = Session(network, rule)
    session.begin_experience()
    network(two_experiences[0][0])
    session.close()
    with pytest.raises(RuntimeError, match="needs the task"):
        network(two_experiences[0][0])


def test_tasks_can_come_back(make_network, two_experiences):
    network, rule = make_network(), XdG(tasks=[4, 4])
    once, twice = make_network(), XdG(tasks=[4, 7])
    learn(Session(network, rule), two_experiences)
    learn(Session(once, twice), two_experiences)
    assert not torch.equal(network[0].weight, once[0].weight)
    x = two_experiences[0][0]
    with rule.in_task(network, 4):
        expected = network(x)
    with rule.context(network, torch.tensor([1] * len(x))):
        assert torch.equal(network(x), expected)
    session = Session(make_network(), XdG(tasks=[0]))
    learn(session, two_experiences[:1])
    with pytest.raises(ValueError, match="one more"):
        session.begin_experience()


def test_rules_that_consolidate_see_the_gated_network(make_network, two_experiences):
    """OWM keeps a gated network's answers to an old task, whichever of the two comes first."""
    for owm, xdg in ((OWM(inputs="samples"), XdG(gated=0.5)), (OWM(inputs="samples"), XdG(gated=0.5))):
        network = make_network()
        learn(Session(network, [owm, xdg] if xdg.seed == 0 else [xdg, owm]), two_experiences[:1])
        x = two_experiences[0][0]
        hidden = torch.tanh(network[0](x)) * xdg.gates("2", 12, 0)
        rows = torch.cat([torch.ones(36, 1), hidden], 1).double()
        expected = torch.linalg.inv(torch.eye(13, dtype=torch.float64) + rows.T @ rows)
        torch.testing.assert_close(owm.state["projector"]["2"], expected, rtol=1e-4, atol=1e-6)


def test_composition_with_ewc_in_either_order_gives_the_same_bits(make_network, two_experiences):
    weights = []
    for first in (True, False):
        rules = [EWC(strength=5.0), XdG(gated=0.5)]
        network = make_network()
        learn(Session(network, rules if first else rules[::-1]), two_experiences)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(*weights)
    plain = make_network()
    learn(Session(plain, XdG(gated=0.5)), two_experiences)
    assert not torch.equal(weights[0], torch.cat([p.detach().flatten() for p in plain.parameters()]))


def test_a_stream_is_tested_with_the_tasks_of_its_samples():
    benchmark = scenario("permuted-digits", experiences=3, seed=0)
    network = MLP(64, [60], 10, activation="relu", output="identity", bias=True, seed=0)
    rule = XdG(gated=0.5)
    module = MetaplasticModule(
        network, rule=rule, optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    )
    result = fit_stream(module, benchmark, max_epochs=3, batch_size=32, accelerator="cpu")
    from lit_meta.data import experience_tensors

    for i, experience in enumerate(benchmark.test_stream):
        x, y = experience_tensors(experience)
        with rule.in_task(network, i):
            expected = (predict(network, x) == y).float().mean()
        torch.testing.assert_close(result.accuracy_matrix[-1, i], expected)
    data = [experience_tensors(e) for e in benchmark.test_stream]
    by_experience = accuracy_of(network, data, protocol="paper", context=lambda e: rule.context(network, e))
    torch.testing.assert_close(result.accuracy_matrix[-1], by_experience)
    with pytest.raises(RuntimeError, match="needs the task"):
        accuracy_of(network, data)


def test_avalanche_tests_each_experience_as_its_own_task():
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    benchmark = scenario("permuted-digits", experiences=2, seed=0)
    network = MLP(64, [40], 10, activation="relu", output="identity", bias=True, seed=0)
    rule = XdG(gated=0.5)
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=64,
        eval_mb_size=100,
        plugins=[MetaplasticityPlugin(rule)],
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
        device="cpu",
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    found = strategy.eval(benchmark.test_stream)
    from lit_meta.data import experience_tensors

    for i, experience in enumerate(benchmark.test_stream):
        x, y = experience_tensors(experience)
        with rule.in_task(network, i):
            expected = float((predict(network, x) == y).float().mean())
        key = next(k for k in found if k.startswith("Top1_Acc_Exp") and k.endswith(f"Exp{i:03d}"))
        assert found[key] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"gated": 1.0}, "closes every unit"),
        ({"gated": -0.1}, "gated must be in"),
        ({"tasks": []}, "tasks must be"),
        ({"tasks": [-1]}, "tasks must be"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        XdG(**arguments)


@pytest.mark.parametrize(
    ("network", "tasks", "error", "message"),
    (
        (nn.Sequential(nn.Linear(3, 2)), 0, ValueError, "one weight layer only"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), -1, ValueError, "at least 0"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), torch.tensor([0.5]), TypeError, "must be integers"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), torch.tensor(0), ValueError, "one for each sample"),
        (nn.Sequential(nn.Linear(3, 9), nn.Linear(9, 2)), torch.tensor([0, 1, 0]), ValueError, "tasks of 3 samples"),
        (nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), 0, ValueError, "closes all 1 units"),
    ),
)
def test_what_cannot_be_gated_is_refused(network, tasks, error, message):
    rule = XdG(gated=0.8)
    with pytest.raises(error, match=message), rule.in_task(network, tasks):
        network(torch.zeros(4, 3))


def test_embeddings_are_not_gated():
    words, places = nn.Embedding(5, 4), nn.Embedding(3, 4)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places, self.head = words, places, nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.words(x) + self.places(torch.arange(x.shape[1])))

    network, rule = Network(), XdG(gated=0.5)
    x = torch.tensor([[0, 4, 2]])
    with rule.in_task(network, 1):
        gated = network(x)
    gate = rule.gates("head", 4, 1)
    torch.testing.assert_close(gated, network.head.forward((words(x) + places(torch.arange(3))) * gate))


def test_samples_of_multi_step_layers_stand_second():
    layer, functional = (pytest.importorskip(f"spikingjelly.activation_based.{n}") for n in ("layer", "functional"))
    network = nn.Sequential(layer.Linear(3, 4), nn.ReLU(), layer.Linear(4, 2))
    functional.set_step_mode(network, "m")
    rule, tasks = XdG(gated=0.5), torch.tensor([0, 1, 1])
    x = torch.randn(3, 3, 3)  # As many time steps as samples.
    with rule.in_task(network, tasks):
        together = network(x)
    for sample, task in enumerate(tasks.tolist()):
        with rule.in_task(network, task):
            torch.testing.assert_close(network(x[:, [sample]]), together[:, [sample]])

"""OWM: what old inputs get stays as it is, and the projector is that of recursive least squares."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import OWM, Session
from lit_meta.core.rule import Synapses
from lit_meta.rules._coverage import coverage
from tests.rules import drivers


def learn(session, x, y, *, optimizer=None, steps=5, batch=None):
    optimizer = optimizer or torch.optim.SGD(session.network.parameters(), lr=0.5)
    loss = F.cross_entropy if y.dtype == torch.long else F.mse_loss
    batch = batch or len(x)
    with session.experience(list(zip(x.split(batch), y.split(batch), strict=True))):
        for _ in range(steps):
            with session.step(x, y, optimizer):
                loss(session.network(x), y).backward()


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(bias, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 3, bias=bias)).double()


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("kind", ("sgd", "momentum and decay", "adam"))
def test_a_linear_networks_old_outputs_do_not_change_at_all(bias, kind):
    network = linear(bias)
    session = Session(network, OWM(regularization=1e-13, inputs="samples"))
    learn(session, drawn(3, 6), drawn(3, 3, seed=1))
    old = network(drawn(3, 6)).detach().clone()
    before = copy.deepcopy(network[0].weight)
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
        "momentum and decay": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    }[kind](network.parameters())
    learn(session, drawn(4, 6, seed=2), drawn(4, 3, seed=3), optimizer=optimizer, steps=20)
    torch.testing.assert_close(network(drawn(3, 6)), old, rtol=0, atol=1e-9)
    assert (network[0].weight - before).abs().max() > 0.01


def test_steps_are_orthogonal_to_the_span_of_old_inputs_and_keep_the_rest():
    network = linear(bias=False)
    x = drawn(2, 6)
    session = Session(network, OWM(regularization=1e-13, inputs="samples"))
    learn(session, x, drawn(2, 3, seed=1))
    before = network[0].weight.detach().clone()
    new_x, new_y = drawn(4, 6, seed=2), drawn(4, 3, seed=3)
    (gradient,) = torch.autograd.grad(F.mse_loss(network(new_x), new_y), network[0].weight)
    learn(session, new_x, new_y, steps=1)
    step = network[0].weight.detach() - before
    complement = torch.eye(6, dtype=torch.float64) - torch.linalg.pinv(x) @ x
    torch.testing.assert_close(step, -0.5 * gradient @ complement, rtol=0, atol=1e-9)
    torch.testing.assert_close(step @ x.T, torch.zeros(3, 2, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ("samples", "mean"))
def test_the_projector_is_the_recursion_over_the_experiences_inputs(kind):
    network = linear(bias=True)
    rule = OWM(regularization=0.7, inputs=kind)
    session = Session(network, rule)
    parts = [drawn(8, 6, seed=4), drawn(6, 6, seed=5)]
    projector = torch.eye(7, dtype=torch.float64)
    for part in parts:
        learn(session, part, drawn(len(part), 3, seed=6), batch=4)
        for batch in part.split(4):
            rows = torch.cat([torch.ones(len(batch), 1, dtype=torch.float64), batch], 1)
            for x in rows if kind == "samples" else rows.mean(0, keepdim=True):
                k = projector @ x / (0.7 + x @ projector @ x)
                projector = projector - torch.outer(k, x @ projector)
    torch.testing.assert_close(rule.state["projector"]["0"], projector, rtol=1e-9, atol=1e-11)


def test_hidden_inputs_are_those_of_the_network_after_learning():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2)).double()
    rule = OWM(regularization=0.5, inputs="samples")
    x = drawn(6, 4)
    learn(Session(network, rule), x, drawn(6, 2, seed=1))
    hidden = torch.cat([torch.ones(6, 1, dtype=torch.float64), torch.tanh(network[0](x)).detach()], 1)
    expected = 0.5 * torch.linalg.inv(0.5 * torch.eye(6, dtype=torch.float64) + hidden.T @ hidden)
    torch.testing.assert_close(rule.state["projector"]["3"], expected, rtol=1e-9, atol=1e-11)
    assert network.training


@pytest.mark.parametrize(
    ("layer", "shape"),
    (
        (nn.Conv2d(2, 3, 3, padding=1), (4, 2, 5, 5)),
        (nn.Conv2d(2, 3, (2, 3), stride=(1, 2), dilation=(2, 1), bias=False), (4, 2, 6, 7)),
        (nn.Conv1d(2, 3, 3, stride=2, padding=1), (4, 2, 7)),
        (nn.Linear(5, 3), (4, 2, 5)),
        (nn.Conv2d(4, 6, 3, groups=2, padding="same", padding_mode="circular"), (2, 4, 5, 6)),
        (nn.Conv2d(4, 4, 3, groups=4, padding=(1, 2), padding_mode="reflect", bias=False), (2, 4, 5, 6)),
        (nn.Conv1d(4, 6, 2, groups=2, padding="same", dilation=2), (2, 4, 9)),
        (nn.Conv3d(2, 3, (1, 2, 3), stride=(2, 1, 1), padding=1, padding_mode="replicate"), (2, 2, 4, 4, 5)),
        (nn.Conv2d(2, 3, 3), (2, 5, 5)),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (4, 2, 3, 4)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 3, 4)),
        (nn.ConvTranspose1d(2, 3, 3, stride=3, dilation=2, padding=5, bias=False), (2, 2, 7)),
        (nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1)), (2, 2, 3, 2, 4)),
    ),
)
def test_rows_times_weights_are_what_a_layer_computes(layer, shape):
    network = nn.Sequential(layer)
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = coverage(Synapses(network, names, list(parameters)), attention=True).layers[0]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    matrix = found.matrix(layer.weight, layer.bias)
    assert found.width == matrix.shape[-1]
    outputs = layer(x)
    if not isinstance(layer, nn.Linear):
        batched = outputs if x.dim() == layer.weight.dim() else outputs.unsqueeze(0)
        outputs = batched.flatten(2).transpose(1, 2)
    by_group = (found.rows(x) @ matrix.mT).reshape(found.groups, -1, matrix.shape[-2])
    torch.testing.assert_close(by_group.transpose(0, 1).flatten(1), outputs.flatten(0, -2), rtol=1e-4, atol=1e-5)
    weight, bias = found.parts(matrix)
    assert torch.equal(weight, layer.weight)
    assert bias is None if layer.bias is None else torch.equal(bias, layer.bias)


def test_a_convolutions_old_outputs_do_not_change():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 2)).double()
    network[2].requires_grad_(False)
    session = Session(network, OWM(regularization=1e-12, inputs="samples"))
    x = drawn(1, 3, 3, 3)
    learn(session, x, drawn(1, 2, seed=1), steps=1)
    old = network[0](x).detach().clone()
    before = network[0].weight.detach().clone()
    learn(session, drawn(2, 3, 3, 3, seed=2), drawn(2, 2, seed=3), steps=5)
    torch.testing.assert_close(network[0](x), old, rtol=0, atol=1e-8)
    assert (network[0].weight - before).abs().max() > 1e-3


def test_a_large_alpha_is_plain_training(make_network, two_experiences):
    weights = []
    for rule in (OWM(regularization=1e12), None):
        network = make_network()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for x, y in two_experiences:
            if rule is None:
                for _ in range(5):
                    optimizer.zero_grad()
                    F.cross_entropy(network(x), y).backward()
                    optimizer.step()
            else:
                session = locals().get("session") or Session(network, rule)
                learn(session, x, y, optimizer=optimizer)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


def test_single_precision_networks_keep_old_outputs_to_single_precision():
    network = nn.Sequential(nn.Linear(32, 4))
    session = Session(network, OWM(regularization=1e-4, inputs="samples"))
    x = (
        10
        * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        @ torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    )
    learn(session, x, torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(2)), steps=1)
    assert session.rules[0].state["projector"]["0"].dtype == torch.float64
    assert torch.linalg.eigvalsh(session.rules[0].state["projector"]["0"]).min() > 0
    old, before = network(x).detach(), network[0].weight.detach().clone()
    new = torch.randn(50, 32, generator=torch.Generator().manual_seed(3))
    learn(session, new, torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(4)), steps=50)
    moved = (network[0].weight - before).norm()
    assert moved > 0.1
    # Without the projector the change would be about |step| |x|.
    assert (network(x) - old).abs().max() < 1e-5 * moved * x.norm(dim=1).max()


def test_a_layer_that_gains_inputs_has_no_memory_of_them():
    network = nn.Sequential(nn.Linear(3, 2)).double()
    rule = OWM(regularization=0.1)
    session = Session(network, rule)
    learn(session, drawn(4, 3), drawn(4, 2, seed=1))
    old = rule.state["projector"]["0"].clone()
    network[0] = drivers.grown(network[0], nn.Linear(5, 2).double())
    session.begin_experience()
    grown = rule.state["projector"]["0"]
    assert torch.equal(grown[:4, :4], old)
    assert torch.equal(grown[4:, 4:], torch.eye(2, dtype=torch.float64))
    session.close()
    network[0] = nn.Linear(2, 2).double()
    with pytest.raises(ValueError, match="cannot lose inputs"):
        session.begin_experience()


def shared():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def half_frozen():
    network = nn.Sequential(nn.Linear(3, 2))
    network[0].weight.requires_grad_(False)
    return network


class Doubled(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.square(), self.bias)


@pytest.mark.parametrize(
    ("network", "message"),
    (
        (nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), "'1.weight' is a parameter of LayerNorm '1'"),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False)), "BatchNorm1d '1' moves statistics"),
        (nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 2)), "a parameter of LSTM '1'"),
        (nn.Sequential(Doubled(3, 2)), "a parameter of Doubled '0'"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2, bias=False))), "a parametrization of '0'"),
        (shared(), "'0.weight' is shared by '0' and '1'"),
        (half_frozen(), "the bias of '0', whose weight is frozen"),
    ),
)
def test_what_it_cannot_protect_is_refused_on_demand(network, message):
    with pytest.raises(ValueError, match=message):
        Session(network, OWM(rest="refuse")).begin_experience()


def test_a_bias_with_another_optimizer_is_refused():
    network = nn.Sequential(nn.Linear(3, 2))
    session = Session(network, OWM())
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.SGD([network[0].weight], lr=0.1)
    session.begin_experience()
    with pytest.raises(ValueError, match="same optimizer"), session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"regularization": 0.0}, "regularization must be in"),
        ({"inputs": "all"}, "inputs must be one of"),
        ({"rest": "ignore"}, "rest must be one of"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        OWM(**arguments)


def permuted_digits(rule):
    """Mean accuracy, over past experiences and over all, after five permutations of the digits."""
    from lit_meta import MetaplasticModule, fit_stream, scenario
    from lit_meta.networks import MLP

    module = MetaplasticModule(
        MLP(64, [100], 10, activation="relu", output="identity", bias=True, seed=0),
        rule=rule,
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.03, "momentum": 0.9}},
    )
    result = fit_stream(
        module, scenario("permuted-digits", experiences=3, seed=0), max_epochs=3, batch_size=32, accelerator="cpu"
    )
    return float(result.accuracy_matrix[-1, :-1].mean()), result.average_accuracy


def test_a_stream_of_permutations_is_kept():
    """The twin of the permuted MNIST experiment that runs in tests."""
    past, average = permuted_digits(OWM(regularization=30.0, inputs="samples"))
    naive_past, naive = permuted_digits(None)
    assert past > naive_past + 0.2
    assert average > max(0.8, naive + 0.1)

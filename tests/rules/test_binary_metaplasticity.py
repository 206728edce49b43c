"""Binary metaplasticity: shrinking steps by hand, the limits of m, and the binarised layers it is for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, BinaryMetaplasticity, MetaplasticModule, Session, audit, fit_stream, scenario
from lit_meta.functional import diagonal_fisher
from lit_meta.networks import BinaryConv2d, BinaryLinear, BinaryMLP, SignActivation, build_network
from tests.rules import drivers


def step_once(network, rule, gradients, optimizer):
    session = Session(network, rule)
    session.begin_experience()
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    session.before_step(optimizer)
    optimizer.step()
    session.after_step(optimizer)


def test_by_hand_after_adams_normalisation():
    network = nn.Sequential(BinaryLinear(4, 1))
    hidden = torch.tensor([[0.5, 0.5, -0.8, -0.8]])
    with torch.no_grad():
        network[0].weight.copy_(hidden)
    gradient = torch.tensor([[3.0, -3.0, 0.01, -0.01]])
    step_once(
        network, BinaryMetaplasticity(metaplasticity=1.35), [gradient], torch.optim.Adam(network.parameters(), 0.1)
    )
    # Adam's first step is 0.1 against the gradient's sign; the 1st and the 4th shrink their weight.
    f = [1 - math.tanh(1.35 * w) ** 2 for w in (0.5, 0.8)]
    expected = torch.tensor([[0.5 - 0.1 * f[0], 0.6, -0.9, -0.8 + 0.1 * f[1]]])
    torch.testing.assert_close(network[0].weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_m_of_zero_is_plain_training(make_network, two_experiences):
    weights = [
        drivers.weights_after(drivers.plain_loop, make_network(), rule, two_experiences)
        for rule in (BinaryMetaplasticity(metaplasticity=0.0), EWC(strength=0.0))
    ]
    assert torch.equal(*weights)


def test_a_large_m_lets_no_weight_shrink(two_experiences):
    x, y = two_experiences[0]
    network = BinaryMLP(8, [16], 4, initial_width=1.0, seed=0)
    before = [p.detach().clone() for p in network.layers.parameters()]
    session = Session(network, BinaryMetaplasticity(metaplasticity=1e6))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    session.begin_experience()
    for _ in range(20):
        with session.step(x, y, optimizer):
            F.cross_entropy(network(x), y).backward()
    grew = False
    for old, parameter in zip(before, network.layers.parameters(), strict=True):
        assert (parameter.detach().abs() >= old.abs()).all()
        assert torch.equal(parameter.sign(), old.sign())
        grew = grew or bool((parameter.detach().abs() > old.abs() + 0.05).any())
    assert grew


def test_biases_and_normalisation_learn_freely():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    rule = BinaryMetaplasticity(metaplasticity=1e6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    step_once(network, rule, [torch.ones_like(p) for p in network.parameters()], optimizer)
    assert (network[0].weight == 1.0).all()
    for parameter in (network[0].bias, network[1].weight, network[1].bias):
        assert (parameter == 0.5).all()


def test_only_binary_layers_on_request():
    network = nn.Sequential(nn.Linear(3, 2), BinaryLinear(2, 2), nn.Flatten())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    rule = BinaryMetaplasticity(metaplasticity=1e6, layers="binary")
    step_once(network, rule, [torch.ones_like(p) for p in network.parameters()], optimizer)
    assert (network[0].weight == 0.5).all()
    assert (network[1].weight == 1.0).all()
    with pytest.raises(ValueError, match="has no BinaryLinear"):
        Session(nn.Linear(2, 2), rule.clone()).begin_experience()


def test_the_logged_plasticity_is_the_mean_share_of_a_shrinking_step():
    network = nn.Sequential(BinaryLinear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.5, -2.0]]))
    session = Session(network, BinaryMetaplasticity(metaplasticity=1.0))
    session.begin_experience()
    expected = sum(1 - math.tanh(w) ** 2 for w in (0.5, 2.0)) / 2
    assert float(session.scalars()["binarymetaplasticity/plasticity"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"metaplasticity": -1.0}, "metaplasticity must be in"),
        ({"metaplasticity": float("nan")}, "metaplasticity must be in"),
        ({"layers": "some"}, "layers must be one of"),
    ),
)
def test_bad_hyperparameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        BinaryMetaplasticity(**arguments)


# The layers.


def test_binary_layers_compute_with_signs_and_pass_the_gradient_through():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    layer = BinaryLinear(4, 3, bias=True)
    with torch.no_grad():
        layer.weight.mul_(0.01)
    signs = torch.where(layer.weight.detach() >= 0, 1.0, -1.0).requires_grad_()
    reference = F.linear(x, signs, layer.bias)
    torch.testing.assert_close(layer(x), reference)
    layer(x).square().sum().backward()
    reference.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, signs.grad)


def test_binary_convolutions_likewise():
    layer = BinaryConv2d(2, 3, 3, stride=2, padding=1)
    assert layer.bias is None
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    signs = torch.where(layer.weight.detach() >= 0, 1.0, -1.0)
    torch.testing.assert_close(layer(x), F.conv2d(x, signs, stride=2, padding=1))
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("normalization", ("batch", "test-batch", "layer", "scale"))
def test_the_binary_mlp_follows_its_equation(normalization):
    network = BinaryMLP(6, [5, 7], 3, normalization=normalization, seed=0).double()
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    h = x.flatten(1)
    for i, layer in enumerate(network.layers):
        a = h @ torch.where(layer.weight.detach() >= 0, 1.0, -1.0).double().T
        if normalization in ("batch", "test-batch"):
            a = (a - a.mean(0)) / torch.sqrt(a.var(0, unbiased=False) + 1e-5)
        elif normalization == "layer":
            a = (a - a.mean(1, keepdim=True)) / torch.sqrt(a.var(1, unbiased=False, keepdim=True) + 1e-5)
        else:
            a = a / math.sqrt(h.shape[1])
        h = a if i == 2 else torch.where(a >= 0, 1.0, -1.0).double()
    torch.testing.assert_close(network(x), h, rtol=1e-6, atol=1e-9)


def test_predictions_depend_on_their_own_sample_alone():
    for normalization in ("batch", "layer", "scale"):
        network = BinaryMLP(12, [20], 3, normalization=normalization, seed=0).eval()
        x = torch.rand(16, 12, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(torch.cat([network(r) for r in x.split(1)]), network(x), rtol=1e-4, atol=1e-5)


def test_statistics_of_the_test_batch_tell_the_task_and_the_audit_finds_it_out():
    network = BinaryMLP(12, [40], 3, normalization="test-batch", initial="uniform", initial_width=0.05, seed=0).eval()
    assert all(float(layer.weight.detach().abs().max()) <= 0.05 for layer in network.layers)
    x = torch.rand(40, 12, generator=torch.Generator().manual_seed(0))
    x[20:] *= 0.2  # Two experiences, of bright and dark samples.
    assert not torch.equal(network(x[:20]), network(x)[:20])
    assert torch.isfinite(network(x[:1])).all()
    y = torch.arange(40) % 3
    report = audit(network, [(x[:20], y[:20]), (x[20:], y[20:])])
    assert not report.passed
    assert any("track_running_stats=False" in str(cause) for cause in report.causes)


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = BinaryMLP(6, [], 3, normalization="scale", initial_width=0.5, seed=1)
    second = BinaryMLP(6, [], 3, normalization="scale", initial_width=0.5, seed=1)
    assert torch.equal(first.layers[0].weight, second.layers[0].weight)
    del state  # Modules draw their own initial values from the global state before these are replaced.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    (
        ({"normalization": "none"}, KeyError, "normalization"),
        ({"initial": "beta"}, KeyError, "initial"),
        ({"initial_width": 0.0}, ValueError, "initial_width"),
        ({"classes": 1}, ValueError, "classes"),
    ),
)
def test_bad_networks(arguments, error, message):
    with pytest.raises(error, match=message):
        build_network("binary-mlp", **{"inputs": 4, "hidden": [3], "classes": 2, **arguments})


def test_per_sample_gradients_can_be_had_of_a_binary_network():
    network = BinaryMLP(6, [8], 3, normalization="layer", seed=0)
    x, y = torch.rand(7, 6, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    found = diagonal_fisher(network, x, y, labels="true")
    name = "layers.0.weight"
    expected = torch.zeros_like(network.layers[0].weight)
    for i in range(7):
        loss = F.cross_entropy(network(x[i : i + 1]), y[i : i + 1])
        expected += torch.autograd.grad(loss, network.layers[0].weight)[0].square() / 7
    torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-7)


def test_sign_activation_has_the_derivative_of_the_hard_tanh():
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    SignActivation()(x).sum().backward()
    assert torch.equal(x.grad, (x.detach().abs() <= 1).float())


def test_it_forgets_less_than_plain_training_of_the_same_network():
    """Two permutations of the digits: the twin, that runs in tests, of the experiment on three."""
    after, new = {}, {}
    for m in (0.0, 30.0):
        module = MetaplasticModule(
            BinaryMLP(64, [200], 10, normalization="layer", seed=0),
            rule=BinaryMetaplasticity(metaplasticity=m, layers="binary"),
            optimizer={"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
        )
        result = fit_stream(
            module, scenario("permuted-digits", experiences=2, seed=0), max_epochs=4, batch_size=32, accelerator="cpu"
        )
        after[m], new[m] = result.accuracy_matrix[-1].tolist()
    assert after[30.0] > after[0.0] + 0.2
    assert new[30.0] > 0.7

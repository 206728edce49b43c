"""The artificial networks against their equations, and what their arguments refuse."""

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta.functional import (
    batch_gate,
    diagonal_fisher,
    sample_gate,
    top_k_gate,
)
from lit_meta.networks import MLP, NETWORKS, ConvNet, InputGate, build_network
from tests.functional.closed_forms import delta_rule, hidden_update

FUNCTIONS = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "identity": lambda a: a,
}


@pytest.mark.parametrize("output", ("sigmoid", "identity"))
@pytest.mark.parametrize("activation", ("sigmoid", "tanh", "relu"))
@pytest.mark.parametrize("bias", (False, True))
def test_mlp_follows_its_equation(activation, output, bias):
    network = MLP(6, [5, 7], 3, activation=activation, output=output, bias=bias, seed=0).double()
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    h = x.flatten(1).numpy()
    for i, layer in enumerate(network.layers):
        a = h @ layer.weight.detach().numpy().T
        if bias:
            a = a + layer.bias.detach().numpy()
        h = FUNCTIONS[output if i == 2 else activation](a)
    np.testing.assert_allclose(network(x).detach().numpy(), h, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "gate"),
    (
        ({"gate": "batch"}, lambda x, n: batch_gate(x, n, margin=0.2)),
        ({"gate": "batch", "gate_threshold": 0.8}, lambda x, n: batch_gate(x, n, threshold=0.8)),
        ({"gate": "sample", "gate_margin": 0.1}, lambda x, n: sample_gate(x, n, margin=0.1)),
        ({"gate": "top_k", "gate_active_units": 3}, lambda x, n: top_k_gate(x, n, 3)),
    ),
)
def test_the_gate_multiplies_every_hidden_output(options, gate):
    network = MLP(6, [5, 8], 3, seed=0, **options).double()
    x = torch.rand(4, 6, dtype=torch.float64)
    first, second, last = network.layers
    h = torch.sigmoid(first(x)) * gate(x, 5)
    h = torch.sigmoid(second(h)) * gate(x, 8)
    torch.testing.assert_close(network(x), torch.sigmoid(last(h)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    ({}, {"gate": "sample"}, {"gate": "top_k", "gate_active_units": 4}),
    ids=["none", "sample", "top_k"],
)
def test_a_prediction_depends_on_its_own_sample(options):
    network = MLP(12, [20], 3, seed=0, **options).double().eval()
    x = torch.rand(16, 12, dtype=torch.float64)
    whole, order = network(x), torch.randperm(16)
    torch.testing.assert_close(network(x[order]), whole[order], rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.cat([network(r) for r in x.split(1)]), whole, rtol=1e-9, atol=0)


def test_the_published_gate_lets_the_batch_in():
    network = MLP(12, [20], 3, seed=0, gate="batch").eval()
    x = torch.rand(16, 12)
    assert not torch.allclose(torch.cat([network(r) for r in x.split(1)]), network(x), atol=1e-3)


def test_local_updates_equal_autograd_through_the_network():
    network = MLP(6, [5], 3, gate="sample", seed=0).double()
    x, target = torch.rand(4, 6, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    modulation = torch.rand(4, 5, dtype=torch.float64) - 0.5
    first, last = network.layers
    mask = sample_gate(x, 5, margin=0.2)
    output = network(x)
    (0.5 * (output - target).square().sum()).backward()
    ungated = torch.sigmoid(first(x))
    hidden = (ungated * mask).detach()
    torch.testing.assert_close(delta_rule(hidden, output.detach(), target, learning_rate=1.0), -last.weight.grad)
    (gradient,) = torch.autograd.grad(ungated * mask, first.weight, modulation)
    update = hidden_update(x, ungated.detach(), modulation, learning_rate=1.0, gate=mask)
    torch.testing.assert_close(update, -gradient)


def test_convnet_is_the_written_out_sequence():
    network = ConvNet((2, 12, 10), channels=(3, 4), kernel=3, hidden=(6,), classes=5, seed=0)
    c1, c2, f1, f2 = network.layers
    x = torch.rand(2, 2, 12, 10)
    h = nn.functional.avg_pool2d(torch.tanh(c1(x)), 2)
    h = nn.functional.avg_pool2d(torch.tanh(c2(h)), 2)
    torch.testing.assert_close(network(x), f2(torch.tanh(f1(h.flatten(1)))))
    assert f1.in_features == 4 * 3 * 2


def test_default_convnet_has_the_published_sizes():
    network = build_network("convnet", input_shape=(1, 28, 28))
    assert [tuple(layer.weight.shape) for layer in network.layers] == [
        (64, 1, 5, 5),
        (128, 64, 5, 5),
        (1000, 128 * 7 * 7),
        (10, 1000),
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    (
        ("mlp", {"inputs": 6, "hidden": [5], "classes": 3}),
        ("lif-mlp", {"inputs": 6, "hidden": [5], "classes": 3}),
        ("convnet", {"input_shape": (1, 8, 8), "channels": (2,), "hidden": (4,)}),
        ("lif-convnet", {"input_shape": (1, 8, 8), "channels": (2,), "hidden": (4,)}),
    ),
)
def test_a_seed_fixes_the_weights_and_leaves_the_global_state(name, arguments):
    before = torch.get_rng_state()
    first, again, other = (build_network(name, **arguments, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert not torch.equal(value, other.state_dict()[key])
        assert value.isfinite().all()
    build_network(name, **arguments)
    assert not torch.equal(before, torch.get_rng_state())


def test_initial_weights_are_uniform_on_one_over_root_fan_in():
    weight = MLP(400, [500], 2, seed=0).layers[0].weight
    assert weight.abs().max().item() == pytest.approx(1 / 20, rel=1e-3)
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.01)


def test_no_hidden_layer_makes_a_linear_network():
    network = MLP(6, [], 3, output="identity", seed=0)
    x = torch.rand(2, 6)
    torch.testing.assert_close(network(x), x @ network.layers[0].weight.T)


def test_a_checkpoint_holds_weights_only():
    network = MLP(6, [5], 3, gate="sample")
    assert set(network.state_dict()) == {"layers.0.weight", "layers.1.weight"}


def test_fisher_of_a_gated_network_takes_each_sample_alone():
    x, y = torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1])
    for gate in ("sample", "batch"):
        network = MLP(6, [9], 3, gate=gate, output="identity", seed=0)
        together = diagonal_fisher(network, x, y)
        alone = [diagonal_fisher(network, x[i : i + 1], y[i : i + 1]) for i in range(5)]
        for name, value in together.items():
            torch.testing.assert_close(value, torch.stack([a[name] for a in alone]).mean(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    (
        (lambda: MLP(6, [5], 1), ValueError, "classes must be at least 2, got 1"),
        (lambda: MLP(0, [5], 2), ValueError, "inputs must be at least 1"),
        (lambda: MLP(6, [5, 0], 2), ValueError, r"hidden\[1\] must be at least 1, got 0"),
        (lambda: MLP(6, 5, 2), TypeError, "hidden must be a sequence"),
        (lambda: MLP(6, [5.0], 2), TypeError, "whole number, got 5.0"),
        (
            lambda: MLP(6, [5], 2, activation="gelu"),
            KeyError,
            "unknown activation 'gelu'.*relu, sigmoid, tanh",
        ),
        (lambda: MLP(6, [5], 2, output="softmax"), KeyError, "identity, sigmoid"),
        (lambda: MLP(6, [5], 2, gate="soft"), KeyError, "batch, none, sample, top_k"),
        (lambda: MLP(6, [5], 2, gate_margin=0.2), ValueError, "gate='none' has no margin"),
        (lambda: MLP(6, [5], 2, gate="top_k"), ValueError, "needs active_units"),
        (
            lambda: MLP(6, [9, 5], 2, gate="top_k", gate_active_units=6),
            ValueError,
            "from 1 to 5, the narrowest",
        ),
        (lambda: MLP(6, [5], 2, gate="sample", gate_active_units=2), ValueError, "has no active_units"),
        (
            lambda: MLP(6, [5], 2, gate="batch", gate_margin=0.1, gate_threshold=0.8),
            ValueError,
            "not both",
        ),
        (lambda: MLP(6, [5], 2, gate="batch", gate_margin=-0.1), ValueError, "must not be negative"),
        (lambda: MLP(6, [5], 2, gate="batch", gate_slope=0.0), ValueError, "slope must be positive"),
        (lambda: MLP(6, [], 2, gate="sample"), ValueError, "there are none"),
        (lambda: MLP(6, [5], 2)(torch.rand(2, 7)), ValueError, "samples of 6 values"),
        (lambda: MLP(6, [5], 2)(torch.rand(6)), ValueError, "samples of 6 values"),
        (lambda: ConvNet((28, 28)), ValueError, r"\(channels, height, width\), got \(28, 28\)"),
        (lambda: ConvNet((1, 3, 3)), ValueError, "too small for 2 stages"),
        (lambda: ConvNet((1, 8, 8), pooling="min"), KeyError, "unknown pooling 'min'.*average, max"),
        (lambda: ConvNet((1, 8, 8), kernel=0), ValueError, "kernel must be at least 1"),
        (lambda: build_network("mpl"), KeyError, "did you mean 'mlp'"),
        (lambda: InputGate("smaple", inputs=2, units=[2]), KeyError, "did you mean 'sample'"),
    ),
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_registry_builds_every_network():
    assert {"mlp", "convnet", "lif-mlp", "lif-convnet"} <= set(NETWORKS)
    assert all(issubclass(network, nn.Module) for network in NETWORKS.values())


@pytest.mark.parametrize(
    "gate",
    ({"gate": "batch"}, {"gate": "sample", "gate_margin": 0.02}, {"gate": "top_k", "gate_active_units": 2}),
    ids=lambda gate: gate["gate"],
)
@pytest.mark.parametrize("hidden", ([30], [30, 20]))
@pytest.mark.parametrize("alike", (True, False))
def test_leaving_out_closed_units_changes_nothing_but_the_time(gate, hidden, alike):
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(1 if alike else 5, 12, generator=generator).expand(5, 12)
    gradients, outputs = [], []
    for skip in (False, True):
        network = MLP(12, hidden, 4, skip_closed=skip, bias=True, seed=0, **gate)
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(outputs[1], outputs[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


def test_closed_units_are_not_computed():
    network = MLP(12, [30], 4, gate="top_k", gate_active_units=2, skip_closed=True, seed=0)
    widths = []
    network.activation.register_forward_hook(lambda module, arguments, output: widths.append(output.shape[1]))
    network(torch.rand(1, 12))
    assert widths == [2]
    network(torch.rand(64, 12))  # Together the samples open more than half.
    assert widths == [2, 30]


def test_nothing_can_be_left_out_without_a_gate():
    with pytest.raises(ValueError, match="no effect without a gate"):
        MLP(12, [30], 4, skip_closed=True)

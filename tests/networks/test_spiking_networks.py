"""Spiking networks against a loop over steps: rates, gradients, memory, independence of the batch."""

import numpy as np
import pytest
import torch

from lit_meta.functional import encoding_thresholds
from lit_meta.networks import LIFMLP, LIFConvNet
from tests.networks.fisher import assert_fisher_is_that_of_a_loop


def logistic(a):
    return 1 / (1 + np.exp(-a))


def rates_by_hand(weights, x, steps, *, gate=None, squash=logistic, seed=0):
    """One sample through a fully connected network, with all of the last step that the gradient needs."""
    thresholds = encoding_thresholds(x.shape, steps, seed=seed).double().numpy()
    potentials = [np.zeros(len(w)) for w in weights]
    spikes = [np.zeros(len(w)) for w in weights]
    total = np.zeros(len(weights[-1]))
    for t in range(steps):
        signal = (x > thresholds[t]).astype(float)
        before, sent, currents = [s.copy() for s in spikes], [], []
        for i, w in enumerate(weights):
            sent.append(signal)
            current = squash(w @ signal)
            currents.append(current)
            potentials[i] = 0.2 * potentials[i] * (1 - spikes[i]) + current
            spikes[i] = (potentials[i] > 0.5).astype(float)
            signal = spikes[i] * (gate if gate is not None and i < len(weights) - 1 else 1.0)
        total += spikes[-1]
    return total / steps, potentials, before, sent, currents


def network_of(**options):
    arguments = {"steps": 9, "seed": 0, **options}
    network = LIFMLP(7, [6], 4, **arguments).double().eval()
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.mul_(4)
    return network


@pytest.fixture
def x():
    return torch.rand(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("learning", ("last_step", "bptt"))
@pytest.mark.parametrize("steps_at_once", (1, 3, 8, 50))
def test_rates_equal_a_loop_over_steps(x, learning, steps_at_once):
    network = network_of(learning=learning, steps_at_once=steps_at_once, encoding_seed=5)
    weights = [layer.weight.detach().numpy() for layer in network.layers]
    expected = [rates_by_hand(weights, row, 9, seed=5)[0] for row in x.numpy()]
    np.testing.assert_allclose(network(x).detach().numpy(), expected, rtol=1e-9)
    assert 0 < np.mean(expected) < 1


def test_the_gate_closes_the_way_out_but_not_the_reset(x):
    network = network_of(gate="top_k", gate_active_units=3)
    weights = [layer.weight.detach().numpy() for layer in network.layers]
    expected = []
    for row in x:
        (mask,) = network.gate(row[None])
        expected.append(rates_by_hand(weights, row.numpy(), 9, gate=mask[0].numpy())[0])
    np.testing.assert_allclose(network(x).detach().numpy(), expected, rtol=1e-9)


def test_gradient_is_the_error_at_the_last_spike_by_hand(x):
    network = network_of()
    target = torch.rand(5, 4, dtype=torch.float64)
    (0.5 * (network(x) - target).square().sum()).backward()
    first, last = (layer.weight.detach().numpy() for layer in network.layers)
    expected = [np.zeros_like(first), np.zeros_like(last)]
    for row, y in zip(x.numpy(), target.numpy(), strict=True):
        rate, potentials, before, sent, currents = rates_by_hand([first, last], row, 9)
        surrogate = [(v > 0.5 - 0.2).astype(float) - s for v, s in zip(potentials, before, strict=True)]
        delta = (rate - y) * surrogate[1] * currents[1] * (1 - currents[1])
        expected[1] += np.outer(delta, sent[1])
        delta = (last.T @ delta) * surrogate[0] * currents[0] * (1 - currents[0])
        expected[0] += np.outer(delta, sent[0])
    for layer, gradient in zip(network.layers, expected, strict=True):
        assert np.abs(gradient).max() > 0
        np.testing.assert_allclose(layer.weight.grad.numpy(), gradient, rtol=1e-6, atol=1e-12)


def test_one_step_of_bptt_is_the_last_step(x):
    gradients = []
    for learning in ("last_step", "bptt"):
        network = network_of(learning=learning, steps=1)
        network(x).sum().backward()
        gradients.append([layer.weight.grad for layer in network.layers])
    for last_step, bptt in zip(*gradients, strict=True):
        torch.testing.assert_close(last_step, bptt)


def test_bptt_reaches_the_first_step_and_the_last_step_alone_does_not():
    # Full input at every step, so the only way for step 1 to matter is through the membrane.
    reached = {}
    for learning in ("last_step", "bptt"):
        network = LIFMLP(1, [], 2, steps=2, learning=learning, surrogate="rectangular", lens=5.0, seed=0)
        network = network.double().eval()
        x = torch.ones(1, 1, dtype=torch.float64)
        network(x).sum().backward()
        reached[learning] = network.layers[0].weight.grad.clone()
    assert not torch.allclose(reached["last_step"], reached["bptt"])
    current = torch.sigmoid(network.layers[0].weight.detach())
    slope = current * (1 - current)
    torch.testing.assert_close(reached["last_step"], 0.1 * slope)
    # V₂ = 0.2 V₁ (1 − S₁) + I: dV₂/dI = 1 + 0.2 ((1 − S₁) − V₁ · 0.1), and both steps count one half.
    spike = (current > 0.5).double()
    through = 1 + 0.2 * ((1 - spike) - current * 0.1)
    torch.testing.assert_close(reached["bptt"], 0.1 * slope * (1 + through) / 2)


def saved_bytes(network, x):
    total = 0

    def pack(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return total


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Numbers in the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def fully_connected(**options):
    return LIFMLP(12, [10], 3, seed=0, **options), torch.rand(4, 12)


def convolutional(**options):
    # So few inputs a neuron need a larger gain to fire.
    network = LIFConvNet((1, 8, 8), (2,), 3, (20,), 3, weight_gain=10.0, seed=0, **options)
    return network, torch.rand(4, 1, 8, 8)


@pytest.mark.parametrize("make", (fully_connected, convolutional))
@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
@pytest.mark.parametrize("training", (True, False))
def test_training_memory_does_not_grow_with_the_steps(make, encoding, training):
    saved, largest = {}, {}
    for steps in (20, 200):
        network, x = make(steps=steps, encoding=encoding)
        network.train(training)
        saved[steps] = saved_bytes(network, x)
        with LargestTensor() as mode:
            network(x)
        largest[steps] = mode.largest
    assert saved[20] == saved[200] > 0
    assert largest[20] == largest[200] > 0


def test_bptt_memory_does_grow():
    short, x = fully_connected(steps=20, learning="bptt")
    long, _ = fully_connected(steps=200, learning="bptt")
    assert saved_bytes(long, x) > 8 * saved_bytes(short, x)


@pytest.mark.parametrize("make", (fully_connected, convolutional))
@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
@pytest.mark.parametrize("learning", ("last_step", "bptt"))
@pytest.mark.parametrize("steps", (1, 2, 25))
def test_every_weight_layer_runs_once_with_gradients(make, encoding, learning, steps):
    network, x = make(encoding=encoding, learning=learning, steps=steps)
    recorded, order = dict.fromkeys(range(len(network.layers)), 0), []
    for i, layer in enumerate(network.layers):

        def count(module, arguments, i=i):
            if torch.is_grad_enabled():
                recorded[i] += 1
                order.append(i)

        layer.register_forward_pre_hook(count)
    network(x)
    assert set(recorded.values()) == {1}
    assert order == sorted(order)


def test_detaching_the_input_of_a_layer_makes_its_block_local(x):
    network = network_of()
    network.layers[1].register_forward_pre_hook(lambda _, arguments: (arguments[0].detach(),))
    network(x).sum().backward()
    assert network.layers[0].weight.grad is None
    assert network.layers[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "make",
    (
        fully_connected,
        convolutional,
        lambda **o: fully_connected(gate="sample", **o),
        lambda **o: fully_connected(gate="top_k", gate_active_units=4, **o),
    ),
    ids=["mlp", "conv", "sample gate", "top_k gate"],
)
@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
def test_a_prediction_depends_on_its_own_sample(make, encoding):
    network, _ = make(encoding=encoding, steps=12)
    network = network.double().eval()
    # The same sample in between others of its kind, and each alone.
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(16, *network.input_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
        order = torch.randperm(16, generator=generator)
        alone = torch.cat([network(row) for row in x.split(1)])
        torch.testing.assert_close(network(x[order]), whole[order])
        torch.testing.assert_close(alone, whole)
        torch.testing.assert_close(network(x), whole)
    assert whole.unique().numel() > 2


def test_the_batch_range_lets_the_batch_in():
    network, x = fully_connected(steps=50, input_range="batch")
    network.eval()
    with torch.no_grad():
        bright = torch.cat([x, torch.full_like(x, 20.0)])
        assert not torch.equal(network(bright)[:4], network(x))


def test_training_draws_spikes_anew_and_evaluation_does_not():
    network, x = fully_connected(steps=30)
    network.train()
    torch.manual_seed(0)
    first, second = network(x), network(x)
    torch.manual_seed(0)
    assert torch.equal(network(x), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    network.eval()
    network(x)
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_in_training_do_not_depend_on_recording():
    network, x = fully_connected(steps=10)
    network.eval()
    plain = network(x)
    assert network.spike_counts == {}
    network.record_spikes = True
    assert torch.equal(network(x), plain)


@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
def test_spike_counts_are_those_the_layers_receive(encoding):
    network, x = convolutional(steps=11, encoding=encoding)
    network.eval()
    network.record_spikes = True
    expected = {i: torch.zeros(4) for i in range(len(network.layers))}
    for i, layer in enumerate(network.layers):

        def count(module, arguments, i=i):
            sent = arguments[0].detach()
            expected[i] += (sent != 0).flatten(1).sum(dim=1).view(-1, 4).sum(dim=0)

        layer.register_forward_pre_hook(count)
    network(x)
    counted = range(1 if encoding == "analog" else 0, len(network.layers))
    assert set(network.spike_counts) == {f"layers.{i}" for i in counted}
    for i in counted:
        assert network.spike_counts[f"layers.{i}"].tolist() == expected[i].tolist()
        assert expected[i].sum() > 0


def test_analog_input_enters_as_it_is():
    network = LIFMLP(1, [], 2, steps=4, encoding="analog", current="identity").double()
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[0.45], [0.2]], dtype=torch.float64))
    # 0.45, then 0.09 + 0.45 fires and resets, and again; 0.2 settles at 0.25.
    assert network(torch.ones(1, 1, dtype=torch.float64)).tolist() == [[0.5, 0.0]]


def test_convolutional_network_pools_between_layers():
    network = LIFConvNet((1, 8, 8), (2, 3), 3, (5,), 4, steps=6, pooling="max", seed=0).eval()
    shapes = []
    for layer in network.layers:
        layer.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape[1:])))
    with torch.no_grad():
        output = network(torch.rand(2, 1, 8, 8))
    assert shapes[-4:] == [(1, 8, 8), (2, 4, 4), (12,), (5,)]
    assert output.shape == (2, 4)


def test_fisher_equals_a_loop_over_samples(x):
    network = network_of()
    y = torch.tensor([0, 1, 2, 3, 0])
    assert_fisher_is_that_of_a_loop(network, x, y)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    (
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps_at_once": 0}, ValueError, "steps_at_once must be at least 1"),
        ({"decay": 1.5}, ValueError, "decay must be from 0 to 1"),
        ({"lens": 0.0}, ValueError, "lens must be positive"),
        ({"surrogate": "atan"}, KeyError, "unknown surrogate 'atan'.*rectangular, stdp"),
        ({"learning": "last"}, KeyError, "unknown learning 'last'.*bptt, last_step"),
        ({"encoding": "latency"}, KeyError, "analog, bernoulli"),
        ({"current": "tanh"}, KeyError, "identity, sigmoid"),
        ({"input_range": "sample"}, KeyError, "batch, fixed"),
        ({"input_low": 1.0}, ValueError, "input_low must be below input_high"),
        ({"encoding": "analog", "input_high": 2.0}, ValueError, "act on encoding='bernoulli'"),
        ({"encoding": "analog", "input_range": "batch"}, ValueError, "input_range acts on"),
        ({"encoding_seed": -1}, ValueError, "encoding_seed must be"),
        ({"weight_gain": 0.0}, ValueError, "weight_gain must be positive"),
    ),
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        LIFMLP(4, [3], 2, **options)
    with pytest.raises(error, match=message):
        LIFConvNet((1, 8, 8), (2,), 3, (3,), 2, **options)


def test_the_gain_scales_initial_weights_and_not_biases():
    one, three = (LIFMLP(6, [5], 2, bias=True, weight_gain=gain, seed=0) for gain in (1.0, 3.0))
    for plain, scaled in zip(one.layers, three.layers, strict=True):
        torch.testing.assert_close(scaled.weight, 3 * plain.weight)
        torch.testing.assert_close(scaled.bias, plain.bias)


def test_every_layer_of_a_convolutional_network_with_wide_weights_fires_at_first():
    network = LIFConvNet((1, 28, 28), (8, 16), hidden=(100,), steps=10, weight_gain=3.0, seed=0).eval()
    network.record_spikes = True
    image = torch.zeros(1, 1, 28, 28)
    image[..., 5:23, 12:16] = 1.0
    with torch.no_grad():
        network(image)
    assert all(count.item() > 0 for count in network.spike_counts.values())


@pytest.mark.parametrize("learning", ("last_step", "bptt"))
def test_long_rates_are_counted_exactly_under_bfloat16(learning):
    network = LIFMLP(1, [], 2, steps=701, encoding="analog", current="identity", learning=learning)
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[0.75], [0.4375]]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rate = network(torch.ones(1, 1))
    # 0.75 fires at every step; 0.4375, then 0.525, fires at every second, 350 times.
    assert rate.dtype == torch.float32
    assert rate[0].tolist() == pytest.approx([1.0, 350 / 701], rel=1e-6)


def test_samples_of_another_size_are_refused():
    network, _ = fully_connected()
    with pytest.raises(ValueError, match="samples of 12 values"):
        network(torch.rand(2, 13))

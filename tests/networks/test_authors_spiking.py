"""NACA with spikes against the code published with it, written anew in plain float64 tensors, over several steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_meta import NACA, Session
from lit_meta.functional import encoding_thresholds
from lit_meta.integrations.losses import summed_mse
from lit_meta.networks import LIFMLP
from tests.networks.fisher import assert_fisher_is_that_of_a_loop
from tests.rules.test_naca import code, modulation

CLASSES, STEPS, INPUTS, HIDDEN = 4, 7, 9, 14
PAPER = {"detach": "none", "reset": "gated", "surrogate_spike": "gated", "output_bias": True}
MARGIN, SLOPE = 0.2, 1000.0


def published_step(weights: list[Tensor], bias: Tensor, table: Tensor, frames: Tensor, mask: Tensor, y: Tensor):
    """Gradients of one batch: membranes keep their graph, and reset and surrogate see the spike behind the gate."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, membrane, old):
            ctx.save_for_backward(membrane, old)
            return (membrane > 0.5).double()

        @staticmethod
        def backward(ctx, gradient):
            membrane, old = ctx.saved_tensors
            return gradient * ((membrane > 0.5 - 0.2).double() - old), None

    weights = [w.clone().requires_grad_() for w in weights]
    bias = bias.clone().requires_grad_()
    membranes: list = [0.0] * 2
    spikes: list = [torch.zeros(len(y), HIDDEN).double(), torch.zeros(len(y), CLASSES).double()]
    total = torch.zeros(len(y), CLASSES).double()
    for frame in frames:
        currents = torch.sigmoid(frame @ weights[0].T)
        membranes[0] = membranes[0] * 0.2 * (1 - spikes[0]) + currents
        spikes[0] = Spike.apply(membranes[0], spikes[0].detach()) * mask
        currents = torch.sigmoid(spikes[0].detach() @ weights[1].T + bias)
        membranes[1] = membranes[1] * 0.2 * (1 - spikes[1]) + currents
        spikes[1] = Spike.apply(membranes[1], spikes[1].detach())
        total = total + spikes[1]
    spikes[0].backward(table[y])
    spikes[1].backward(total.detach() / len(frames) - torch.eye(CLASSES).double()[y])
    return weights[0].grad, weights[1].grad, bias.grad, total.detach() / len(frames)


def batches():
    generator = torch.Generator().manual_seed(0)
    for label in (2, 0, 3, 1, 2):
        x = torch.rand(6, INPUTS, generator=generator, dtype=torch.float64) * 3 - 0.5
        # Around the mean's maximum less the margin, so that some gates are half open.
        x[:, 1] = x[:, 0] - MARGIN + 0.0005
        yield x, torch.full((6,), label)


def test_steps_equal_the_published_code():
    network = LIFMLP(
        INPUTS,
        [HIDDEN],
        CLASSES,
        steps=STEPS,
        gate="batch",
        gate_margin=MARGIN,
        input_range="batch",
        weight_gain=2.0,
        seed=3,
        **PAPER,
    ).double()
    network.eval()  # Fixed thresholds, so that both see the same spikes.
    rule = NACA(reduction="sum")
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    session.begin_experience()
    hidden, head = network.layers
    assert hidden.bias is None
    weights, bias = [hidden.weight.detach().clone(), head.weight.detach().clone()], head.bias.detach().clone()
    half_open = 0
    for x, y in batches():
        with session.step(x, y, optimizer):
            rates = network(x)
            summed_mse(rates, y).backward()
        levels = torch.stack([torch.from_numpy(code(c, CLASSES)) for c in range(CLASSES)])
        levels = levels @ rule.state["projection"]["layers.0"].double()
        table = levels.clone().apply_(modulation)
        index = torch.arange(HIDDEN) * INPUTS // HIDDEN
        mean = x.mean(0)
        mask = torch.sigmoid(SLOPE * (mean - (mean.max() - MARGIN)))[index]
        half_open += int(((mask > 0.01) & (mask < 0.99)).sum())
        thresholds = encoding_thresholds((INPUTS,), STEPS, low=x.min(), high=x.max()).double()
        frames = (x > thresholds[:, None]).double()
        *gradients, expected = published_step(weights, bias, table, frames, mask, y)
        assert all(g.abs().max() > 0 for g in gradients)
        torch.testing.assert_close(rates.detach(), expected, rtol=0, atol=1e-12)
        weights = [w - 0.05 * g for w, g in zip(weights, gradients[:2], strict=True)]
        bias = bias - 0.05 * gradients[2]
        for got, wanted in zip((hidden.weight, head.weight, head.bias), (*weights, bias), strict=True):
            torch.testing.assert_close(got.detach(), wanted, rtol=0, atol=1e-12)
    assert half_open > 0


@pytest.mark.parametrize("change", ({"detach": "state"}, {"reset": "fired"}, {"surrogate_spike": "fired"}))
def test_each_difference_changes_what_is_learned(change):
    learned = []
    for options in (PAPER, {**PAPER, **change}):
        network = LIFMLP(
            INPUTS, [HIDDEN], CLASSES, steps=STEPS, gate="batch", gate_margin=MARGIN, weight_gain=2.0, seed=3, **options
        )
        session = Session(network.double().eval(), NACA(reduction="sum"))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        session.begin_experience()
        for x, y in batches():
            with session.step(x, y, optimizer):
                summed_mse(network(x), y).backward()
        learned.append(network.layers[0].weight.detach())
    assert (learned[0] - learned[1]).abs().max() > 1e-6


def by_hand(weight: Tensor, frames: Tensor, detach: str) -> Tensor:
    """The gradient of the last spike by one neuron's weight; currents as they are, surrogate "stdp" of lens 0.2."""
    # Forward-mode derivatives of potential and spike, kept or dropped from step to step.
    potential = spike = torch.tensor(0.0).double()
    d_potential = d_spike = torch.zeros_like(weight)
    for frame in frames:
        keep_potential = d_potential if detach == "none" else torch.zeros_like(weight)
        keep_spike = torch.zeros_like(weight) if detach == "state" else d_spike
        d_new = 0.2 * (keep_potential * (1 - spike) - potential * keep_spike) + frame
        new = 0.2 * potential * (1 - spike) + weight @ frame
        d_spike = d_new * ((new > 0.3).double() - spike)
        potential, spike, d_potential = new, (new > 0.5).double(), d_new
    return d_spike


@pytest.mark.parametrize("detach", ("state", "potential", "none"))
@pytest.mark.parametrize("steps_at_once", (1, 3))
def test_the_gradient_of_the_last_spike_by_hand(detach, steps_at_once):
    generator = torch.Generator().manual_seed(5)
    frames = (torch.rand(6, 5, 3, generator=generator) > 0.4).double()
    network = LIFMLP(
        3, [], 2, steps=5, encoding="spikes", current="identity", detach=detach, steps_at_once=steps_at_once
    )
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[0.3, 0.25, 0.1], [0.15, 0.4, -0.1]]))
    network.double()
    network(frames).sum().backward()
    expected = torch.stack(
        [sum(by_hand(row.double(), sample, detach) for sample in frames) for row in network.layers[0].weight.detach()]
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(network.layers[0].weight.grad, expected)


def test_what_is_detached_changes_no_rate_and_no_count_of_spikes():
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    outputs, counts = [], []
    for detach in ("state", "potential", "none"):
        network = LIFMLP(6, [8], 3, steps=9, detach=detach, weight_gain=4.0, seed=0).eval()
        network.record_spikes = True
        outputs.append(network(x).detach())
        counts.append({name: count.tolist() for name, count in network.spike_counts.items()})
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert counts[0] == counts[1] == counts[2]
    assert outputs[0].unique().numel() > 2


@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
def test_fisher_of_a_network_that_keeps_its_membranes_equals_a_loop(encoding):
    network = LIFMLP(5, [6], 3, steps=6, detach="none", encoding=encoding, weight_gain=4.0, seed=1).double().eval()
    x, y = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)).double(), torch.tensor([0, 1, 2, 1])
    assert_fisher_is_that_of_a_loop(network, x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"detach": "none", "learning": "bptt"}, "bptt"),
        ({"reset": "gated"}, "without a gate"),
        ({"surrogate_spike": "gated"}, "without a gate"),
        ({"surrogate_spike": "gated", "surrogate": "rectangular", "gate": "batch"}, "'stdp' only"),
    ),
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LIFMLP(4, [3], 2, **options)


def test_a_bias_of_the_output_layer_alone():
    network = LIFMLP(4, [3, 3], 2, output_bias=True, seed=0)
    assert [layer.bias is not None for layer in network.layers] == [False, False, True]
    assert LIFMLP(4, [3], 2, bias=True, output_bias=False, seed=0).layers[-1].bias is None

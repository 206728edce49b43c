"""NACA on spiking networks, against the equations step by step in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lit_meta import NACA, Session
from lit_meta.integrations.losses import summed_mse
from lit_meta.networks import LIFMLP, LIFConvNet, Stepwise
from tests.rules.test_naca import code, logistic, modulation

CLASSES, STEPS = 4, 6
Y = torch.tensor([0, 1, 2, 3, 3, 1])


def learn(network, rule, x, y=Y):
    """Gradients by name after one training step's backward pass under the rule."""
    session = Session(network, rule)
    session.begin_experience()
    session.before_forward(x, y)
    summed_mse(network(x), y).backward()
    session.after_backward()
    session.before_step()
    return {name: p.grad for name, p in network.named_parameters()}


def spiking_reference(weights, projections, x, y, gates, *, decay=0.2, threshold=0.5, lens=0.2):
    """Gradients of the published rule: x (batch, T, inputs); layers of logistic currents, the last one the readout."""
    potentials, spikes = [None] * len(weights), [None] * len(weights)
    count = np.zeros((len(x), weights[-1].shape[0]))
    for t in range(x.shape[1]):
        before, sent, slopes, signal = list(spikes), [], [], x[:, t]
        for k, weight in enumerate(weights):
            sent.append(signal)
            current = logistic(signal @ weight.T)
            slopes.append(current * (1 - current))
            if potentials[k] is None:
                potentials[k], spikes[k] = np.zeros_like(current), np.zeros_like(current)
                before[k] = spikes[k]
            potentials[k] = decay * potentials[k] * (1 - spikes[k]) + current
            spikes[k] = (potentials[k] > threshold).astype(float)
            signal = spikes[k] * gates[k] if k < len(gates) else spikes[k]
        count += spikes[-1]
    # The last step alone: active near the threshold now, minus active a step ago.
    surrogates = [(v > threshold - lens) - s.astype(float) for v, s in zip(potentials, before, strict=True)]
    gradients = []
    for k in range(len(weights)):
        if k < len(projections):
            levels = np.stack([code(int(label), CLASSES) for label in y]) @ projections[k]
            error = np.vectorize(modulation)(levels) * gates[k]
        else:
            error = count / x.shape[1] - np.eye(CLASSES)[y]
        gradients.append((error * surrogates[k] * slopes[k]).T @ sent[k])
    return gradients


@pytest.mark.parametrize("gate", ("none", "top_k"))
@pytest.mark.parametrize("hidden", ([7], [7, 6]))
def test_the_last_step_learns_as_published(gate, hidden):
    options = {"gate_active_units": 4} if gate == "top_k" else {}
    network = LIFMLP(5, hidden, CLASSES, steps=STEPS, encoding="spikes", gate=gate, weight_gain=3.0, seed=1, **options)
    x = (torch.rand(6, STEPS, 5, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    network = network.double()
    rule = NACA(reduction="sum")
    found = learn(network, rule, x)
    masks = network.gate(x.mean(1))
    gates = [np.ones(n) if mask is None else mask.numpy() for mask, n in zip(masks, hidden, strict=True)]
    expected = spiking_reference(
        [layer.weight.detach().numpy() for layer in network.layers],
        [rule.state["projection"][f"layers.{k}"].double().numpy() for k in range(len(hidden))],
        x.numpy(),
        Y.numpy(),
        gates,
    )
    for k, gradient in enumerate(expected):
        assert np.abs(gradient).max() > 0
        np.testing.assert_allclose(found[f"layers.{k}.weight"].numpy(), gradient, rtol=1e-6, atol=1e-12)


def test_a_convolutional_spiking_network_learns_in_every_layer():
    torch.manual_seed(0)  # Input spikes are drawn, and one draw in ten leaves no gradient in the head.
    network = LIFConvNet(
        (1, 8, 8), channels=(4, 6), kernel=3, hidden=(12,), classes=CLASSES, steps=5, weight_gain=3.0, seed=0
    )
    found = learn(network, NACA(), torch.rand(6, 1, 8, 8))
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in found.values())


def test_frames_of_events_are_what_arrives_at_each_step():
    frames = (torch.rand(3, STEPS, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    network = LIFMLP(16, [9], CLASSES, steps=STEPS, encoding="spikes", seed=0)
    network.record_spikes = True
    rates = network(frames)
    assert torch.equal(network.spike_counts["layers.0"], frames.flatten(1).sum(1).long())
    assert torch.equal(rates, network(frames))  # Nothing is drawn.
    together = LIFMLP(16, [9], CLASSES, steps=STEPS, encoding="spikes", seed=0, steps_at_once=1)
    torch.testing.assert_close(together(frames), rates)


@pytest.mark.parametrize("shape", ((3, STEPS), (3, STEPS - 1, 1, 4, 4), (3, STEPS, 1, 4, 5)))
def test_frames_of_another_shape_are_refused(shape):
    network = LIFMLP(16, [9], CLASSES, steps=STEPS, encoding="spikes")
    with pytest.raises(ValueError, match=r"expected a batch|one frame a step"):
        network(torch.zeros(shape))


def test_options_of_the_bernoulli_encoding_have_no_place_beside_spikes():
    for options in ({"input_range": "batch"}, {"input_high": 2.0}):
        with pytest.raises(ValueError, match="bernoulli"):
            LIFMLP(16, [9], CLASSES, encoding="spikes", **options)


@pytest.fixture
def snn():
    return pytest.importorskip("snntorch", reason="needs the extra snn: pip install 'lit-meta[snn]'")


def snntorch_network(snn, *, beta=0.2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 7),
        snn.Leaky(beta=beta, threshold=0.5, init_hidden=True, reset_mechanism="zero"),
        nn.Linear(7, CLASSES),
        snn.Leaky(beta=beta, threshold=0.5, init_hidden=True, reset_mechanism="zero", output=True),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_of_snntorch_learns_from_its_last_step(snn):
    network = Stepwise(snntorch_network(snn), steps=STEPS)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(3))
    rule = NACA(reduction="sum")
    found = learn(network, rule, x)

    # By hand: five steps without a graph, then one whose hidden spikes get the local error and whose readout its own.
    step = network.step
    for module in step:
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    count = torch.zeros(6, CLASSES)
    with torch.no_grad():
        for _ in range(STEPS - 1):
            count += step(x)[0]
    hidden = step[1](step[0](x))
    levels = np.stack([code(int(label), CLASSES) for label in Y]) @ rule.state["projection"]["step.0"].double().numpy()
    error = torch.from_numpy(np.vectorize(modulation)(levels)).float()
    expected = torch.autograd.grad(hidden, step[0].weight, error)[0]
    torch.testing.assert_close(found["step.0.weight"], expected)
    spikes = step[3](step[2](hidden.detach()))[0]
    rate = (count + spikes.detach()) / STEPS
    readout = torch.autograd.grad(spikes, step[2].weight, rate - torch.eye(CLASSES)[Y])[0]
    torch.testing.assert_close(found["step.2.weight"], readout)
    assert expected.abs().max() > 0
    assert readout.abs().max() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_plain_loop_of_snntorch_over_time_is_refused_with_the_layers_name(snn):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = snntorch_network(snn)

        def forward(self, x):
            return torch.stack([self.step(x)[0] for _ in range(STEPS)]).mean(0)

    with pytest.raises(ValueError, match=r"'step.0' was used twice"):
        learn(Loop(), NACA(), torch.rand(6, 5))


def test_frames_for_a_stepwise_network():
    class Threshold(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)
            nn.init.eye_(self.layer.weight)

        def forward(self, x):
            return torch.relu(self.layer(x)).clamp(max=1)

    network = Stepwise(Threshold(), steps=3, frames=True, reset=lambda module: None)
    frames = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]])
    torch.testing.assert_close(network(frames), torch.tensor([[1 / 3, 1.0]]))
    with pytest.raises(ValueError, match=r"expected frames \(batch, 3, ...\)"):
        network(frames[:, :2])


def test_membranes_that_nobody_resets_are_refused():
    with pytest.raises(ValueError, match="carry over"):
        Stepwise(nn.Linear(2, 2), steps=3)

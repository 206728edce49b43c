"""State of other packages' spiking neurons: what is measured and tested begins without any, training does not fail on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, MAS, OWM, SI, Session
from lit_meta.core.spiking_state import SpikingState
from lit_meta.evaluation.accuracy import predict


def snntorch_network(seed=0):
    snntorch = pytest.importorskip("snntorch")
    torch.manual_seed(seed)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 3)
            self.hidden = snntorch.Leaky(beta=0.9, init_hidden=True)
            self.last = snntorch.Leaky(beta=0.9, init_hidden=True, output=True)

        def forward(self, x):
            return torch.stack([self.last(self.second(self.hidden(self.first(3 * x))))[1] for _ in range(4)]).mean(0)

    return Network()


def spikingjelly_network(seed=0):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import neuron

    torch.manual_seed(seed)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 12), neuron.LIFNode(tau=1.5), nn.Linear(12, 3))
            self.layers.append(neuron.IFNode(v_threshold=1e6))

        def forward(self, x):
            for _ in range(4):
                self.layers(3 * x)
            return self.layers[-1].v

    return Network()


NETWORKS = {"snnTorch": snntorch_network, "SpikingJelly": spikingjelly_network}


def data(samples=9):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(samples, 6, generator=generator), torch.randint(0, 3, (samples,), generator=generator)


@pytest.fixture(params=NETWORKS)
def make(request):
    return NETWORKS[request.param]


def resetting(network):
    """The same weights in a network that resets itself: what everything is compared with."""
    state = SpikingState(network)
    network.register_forward_pre_hook(lambda *_: state.reset())
    return network


@pytest.mark.parametrize("rule", (EWC(strength=10.0), SI(strength=1.0), MAS(strength=1.0), OWM()))
def test_a_network_that_keeps_state_learns_as_one_that_resets_itself(make, rule):
    weights, memories = [], []
    for prepare in (lambda network: network, resetting):
        network, clone = prepare(make()), rule.clone()
        session = Session(network, clone)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(2):
            x, y = data()
            batches = list(zip(x.split(4), y.split(4), strict=True))  # The last is smaller.
            with session.experience(batches):
                for inputs, targets in batches:
                    with session.step(inputs, targets, optimizer):
                        F.cross_entropy(network(inputs), targets).backward()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        memories.append(torch.cat([t.flatten().double() for t in clone.state.state_dict().values()]))
    assert torch.equal(*weights)
    assert torch.equal(*memories)
    assert bool(memories[0].any())


def test_a_prediction_depends_on_its_own_batch_only(make):
    network = make()
    x, _ = data()
    alone = torch.cat([predict(network, sample) for sample in x.split(1)])
    network(x)
    assert torch.equal(predict(network, x, batch_size=4), alone)
    assert torch.equal(predict(network, x.flip(0), batch_size=9).flip(0), alone)


def test_detached_state_is_left_to_training(make):
    network = make()
    state = SpikingState(network)
    x, _ = data()
    network(x)
    state.reset()
    with torch.no_grad():
        first = network(x)
    state.reset_used()
    with torch.no_grad():
        second = network(x)
    assert not torch.equal(first, second)  # State went on.
    state.reset()
    network(x).sum().backward()
    state.reset_used()
    torch.testing.assert_close(network(x), first)


def test_other_networks_have_none(make_network):
    assert not SpikingState(make_network())

"""Several rules on one network: the order is the one given, and what cannot work together is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lit_meta import BGD, EWC, MAS, NACA, SI, UPGD, BennaFusi, Metaplasticity, MetaplasticModule, Session
from tests.rules import drivers

ORDERS = (
    lambda: [SI(strength=5.0), EWC(strength=20.0)],
    lambda: [SI(strength=5.0), UPGD(noise=0.01), BennaFusi(rate=0.1)],
    lambda: [EWC(strength=20.0), MAS(strength=0.5, interval=3)],
    lambda: [NACA(), EWC(strength=20.0)],
)


@pytest.mark.parametrize("rules", ORDERS)
@pytest.mark.parametrize("host", drivers.HOSTS)
def test_every_host_gives_the_same_bits(host, rules, make_network, two_experiences):
    loop = drivers.weights_after(drivers.plain_loop, make_network(), rules(), two_experiences)
    other = drivers.weights_after(drivers.HOSTS[host], make_network(), rules(), two_experiences)
    assert torch.equal(loop, other)


def consolidated(rules, network, data):
    """A session with one experience behind it, away from its anchors, and a gradient of zero to add to."""
    session = Session(network, rules)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    x, y = data
    with session.experience([(x, y)]), session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    session.begin_experience()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    session.before_step()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def test_penalties_add_up(make_network, two_experiences):
    data = two_experiences[0]
    si, ewc = (consolidated([rule], make_network(), data) for rule in (SI(strength=5.0), EWC(strength=20.0)))
    both = consolidated([SI(strength=5.0), EWC(strength=20.0)], make_network(), data)
    torch.testing.assert_close(both, si + ewc)


def test_the_order_is_the_one_given(make_network, two_experiences):
    data = two_experiences[0]
    # Gated first, the pull is added whole; gated last, the pull is gated too.
    before = consolidated([UPGD(noise=0.0), EWC(strength=20.0)], make_network(), data)
    after = consolidated([EWC(strength=20.0), UPGD(noise=0.0)], make_network(), data)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize(
    ("rules", "message"),
    (
        ([EWC(), SI()], "put SI before EWC"),
        ([UPGD(), SI()], "put SI before UPGD"),
        ([MAS(), SI()], "put SI before MAS"),
        ([SI(), NACA()], "not the gradient of any loss"),
        ([NACA(), SI()], "not the gradient of any loss"),
        ([NACA(), NACA()], "both set the local errors"),
        ([BGD(), BennaFusi()], "BGD makes the whole update"),
        ([EWC(), BGD()], "BGD makes the whole update"),
        ([NACA(), BGD()], "BGD makes the whole update"),
        ([], "no rule was given"),
    ),
)
def test_what_cannot_work_together_is_refused_everywhere(rules, message, make_network):
    for bind in (
        lambda: Session(make_network(), rules),
        lambda: Metaplasticity(rules),
        lambda: MetaplasticModule(make_network(), rule=rules),
    ):
        with pytest.raises(ValueError, match=message):
            bind()


def test_one_instance_twice_is_refused(make_network):
    rule = EWC()
    with pytest.raises(ValueError, match="given twice"):
        Session(make_network(), [rule, rule])


def test_each_rule_keeps_its_own_memory_through_a_saved_state(make_network, two_experiences):
    x, y = two_experiences[0]
    network = make_network()
    session = Session(network, [SI(), EWC()])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    with session.experience([(x, y)]), session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    other = Session(make_network(), [SI(), EWC()])
    other.load_state_dict(session.state_dict())
    for one, two in zip(session.rules, other.rules, strict=True):
        assert one.state.state_dict().keys() == two.state.state_dict().keys()
        assert all(torch.equal(t, two.state.state_dict()[k]) for k, t in one.state.state_dict().items())
    with pytest.raises(ValueError, match="state was saved by the rules"):
        Session(make_network(), [SI()]).load_state_dict(session.state_dict())

"""What is finite is decided by the numbers themselves, not by a sum that overflows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import EWC, NACA, Session
from lit_meta.evaluation.accuracy import predict
from lit_meta.utils.validation import all_finite, require_in

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_values_whose_sum_overflows_are_finite(dtype):
    largest = torch.finfo(dtype).max
    assert all_finite(torch.full((1000,), largest, dtype=dtype))
    assert all_finite(torch.tensor([], dtype=dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", (float("nan"), float("inf"), -float("inf")))
def test_one_bad_value_among_many_is_seen(dtype, bad):
    values = torch.ones(1000, dtype=dtype)
    values[777] = bad
    assert not all_finite(values)
    values[3] = -bad  # Infinities of both signs must not cancel.
    assert not all_finite(values)


def test_integers_are_finite():
    assert all_finite(torch.full((10,), 2**62))
    assert all_finite(torch.ones(3, dtype=torch.bool))


def half_network(weight):
    network = nn.Sequential(nn.Linear(784, 1000)).half()
    with torch.no_grad():
        network[0].weight.fill_(weight)
    return network


def test_small_half_precision_weights_do_not_count_as_diverged():
    network = half_network(0.1)  # They add up to 78,400, which half precision does not hold.
    session, x, y = Session(network, EWC(samples=4)), torch.rand(4, 784).half(), torch.arange(4)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    with session.experience([(x, y)]), session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    assert session.experiences == 1


def test_half_precision_weights_that_diverged_are_refused():
    network = half_network(0.1)
    session, x, y = Session(network, EWC()), torch.rand(4, 784).half(), torch.arange(4)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    session.begin_experience()
    with session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    with torch.no_grad():
        network[0].weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"'0\.weight' is not finite"):
        session.end_experience([(x, y)])


def test_half_precision_scores_are_predictions():
    network = nn.Linear(4, 10).half()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.arange(10) + 20.0)
    assert predict(network, torch.zeros(512, 4).half()).tolist() == [9] * 512


def test_half_precision_local_errors_whose_sum_overflows_are_learned_from():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 200), nn.Sigmoid(), nn.Linear(200, 3)).half()
    session, x, y = Session(network, NACA(reduction="sum")), torch.rand(6, 5).half(), torch.arange(6) % 3

    def large(layer, output, targets):
        return torch.full_like(output, 100.0)  # 1,200 of them are more than half precision holds.

    session.rules[0].local_error = large
    session = Session(network, session.rules)
    session.begin_experience()
    session.before_forward(x, y)
    F.cross_entropy(network(x), y).backward()
    session.after_backward()
    session.before_step()
    assert network[0].weight.grad.isfinite().all()
    assert network[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_finite_inputs_whose_sum_overflows_are_no_reason_to_stop(dtype):
    network = nn.Sequential(nn.Linear(4, 2)).to(dtype)
    session = Session(network, EWC())
    session.begin_experience()
    large = torch.finfo(dtype).max ** 0.5 / 1000  # Larger ones are refused, since their products overflow.
    session.before_forward(torch.full((64, 4), large, dtype=dtype), torch.zeros(64, dtype=torch.long))
    bad = torch.full((64, 4), large, dtype=dtype)
    bad[1, 1] = float("nan")
    with pytest.raises(ValueError, match="hold 1 NaN"):
        session.before_forward(bad, torch.zeros(64, dtype=torch.long))


def test_true_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"strength must be in \[0.0, 2.0\], got True"):
        require_in("strength", True, 0.0, 2.0)

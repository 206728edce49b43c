"""Every rule, whatever the shapes, types and order of events: what fails or is left out leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.rules import RULES
from tests.rules.test_contract import from_config

# What happens between the good steps, and must not matter.
TROUBLES = ("loss", "nan", "empty", "infinite", "huge", "left", "abandoned", "begin", "labels")
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 5)), st.tuples(st.sampled_from(TROUBLES), st.integers(1, 5))
)
SHAPES = st.fixed_dictionaries(
    {
        "inputs": st.integers(1, 5),
        "hidden": st.lists(st.integers(2, 7), min_size=1, max_size=2),
        "classes": st.integers(2, 6),
        "dtype": st.sampled_from((torch.float32, torch.float64)),
        "bias": st.booleans(),
    }
)


def network_of(inputs, hidden, classes, dtype, bias):
    torch.manual_seed(0)
    widths = [inputs, *hidden]
    layers = [part for a, b in zip(widths, hidden, strict=False) for part in (nn.Linear(a, b, bias=bias), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes, bias=bias)).to(dtype)


def trouble(session, optimizer, x, y, kind):
    """One thing that goes wrong, or is left out, in the middle of an experience."""
    network = session.network
    if kind == "begin":
        session.begin_experience()
    elif kind == "left":  # A training step that returned nothing.
        session.before_forward(x, y)
        network(x)
        session.leave_batch()
    elif kind == "abandoned":
        optimizer.zero_grad()
        session.before_forward(x, y)
        F.cross_entropy(network(x), y).backward()
        session.after_backward()
        session.abandon_step()
        optimizer.zero_grad()
    else:
        bad = {"empty": x[:0], "infinite": x / 0.0, "huge": torch.full_like(x, torch.finfo(x.dtype).max / 8)}.get(
            kind, x
        )
        labels = y[: len(bad)] + (100 if kind == "labels" else 0)
        with session.step(bad, labels, optimizer):
            loss = F.cross_entropy(network(bad), labels)
            if kind == "loss":
                raise ArithmeticError
            (loss * float("nan") if kind == "nan" else loss).backward()


def run(name, shape, stream, *, smooth):
    """Everything that is left at the end; or why a rule refuses this network or this data."""
    network, generator = network_of(**shape), torch.Generator().manual_seed(1)
    session = Session(network, from_config(name))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    try:
        for events in stream:
            seen = []
            session.begin_experience()
            for kind, size in events:
                x = torch.randn(size, shape["inputs"], generator=generator, dtype=shape["dtype"])
                y = torch.randint(0, shape["classes"], (size,), generator=generator)
                if kind == "step":
                    with session.step(x, y, optimizer):
                        F.cross_entropy(network(x), y).backward()
                    seen.append((x, y))
                elif not smooth:
                    before = copy.deepcopy((network.state_dict(), session.state_dict()["rules"]))
                    try:
                        trouble(session, optimizer, x, y, kind)
                    except (ValueError, IndexError, ArithmeticError):
                        pass
                    else:
                        assert kind in ("left", "abandoned"), f"{kind} was not refused"
                    after = network.state_dict(), session.state_dict()["rules"]
                    assert str(before) == str(after), kind
            session.end_experience(seen)
    except ValueError as error:
        return str(error), None
    return torch.cat([p.detach().flatten() for p in network.parameters()]), session.rules[0].state.state_dict()


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=6, derandomize=True)
@given(shape=SHAPES, stream=st.lists(st.lists(EVENTS, min_size=1, max_size=5), min_size=1, max_size=2))
def test_what_fails_or_is_left_out_leaves_no_trace(name, shape, stream):
    stream = [[("step", 2), *events, ("step", 3)] for events in stream]
    rough, smooth = (run(name, shape, stream, smooth=smooth) for smooth in (False, True))
    if smooth[1] is None:
        assert rough == smooth
        assert "\n" not in smooth[0]
        return
    assert rough[1] is not None, rough[0]
    assert smooth[0].isfinite().all()
    assert torch.equal(rough[0], smooth[0])
    assert rough[1].keys() == smooth[1].keys()
    for key, tensor in smooth[1].items():
        assert torch.equal(rough[1][key], tensor), key

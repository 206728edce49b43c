"""Local updates and the quadratic penalty against loops in double precision."""

import math

import numpy as np
import pytest
import torch

from lit_meta.functional import (
    add_quadratic_penalty_gradient_,
    quadratic_penalty,
)
from tests.functional.closed_forms import delta_rule, hidden_update


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def draw(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", ("sigmoid", "identity"))
def test_delta_rule_is_the_sum_over_samples(generator, activation):
    hidden, output, target = draw(generator, 6, 4), draw(generator, 6, 3), draw(generator, 6, 3)
    expected = np.zeros((3, 4))
    for h, o, y in zip(hidden.numpy(), output.numpy(), target.numpy(), strict=True):
        for k in range(3):
            slope = o[k] * (1 - o[k]) if activation == "sigmoid" else 1.0
            expected[k] -= 0.3 * (o[k] - y[k]) * slope * h
    change = delta_rule(hidden, output, target, learning_rate=0.3, output_activation=activation)
    np.testing.assert_allclose(change.numpy(), expected, rtol=1e-6)


def test_delta_rule_is_descent_on_half_the_squared_error(generator):
    weights = (draw(generator, 3, 4) - 0.5).requires_grad_()
    hidden, target = draw(generator, 6, 4), draw(generator, 6, 3)
    output = torch.sigmoid(hidden @ weights.T)
    (0.5 * (output - target).square().sum()).backward()
    change = delta_rule(hidden, output.detach(), target, learning_rate=1.0)
    torch.testing.assert_close(change, -weights.grad)


@pytest.mark.parametrize("gate", ("none", "batch", "sample"))
def test_hidden_update_is_the_sum_over_samples_and_the_gradient_at_the_output(generator, gate):
    inputs, modulation = draw(generator, 6, 5), draw(generator, 6, 4) * 2.4 - 1.2
    weights = (draw(generator, 4, 5) - 0.5).requires_grad_()
    mask = {"none": None, "batch": draw(generator, 4), "sample": draw(generator, 6, 4)}[gate]
    expected = np.zeros((4, 5))
    for b in range(6):
        for j in range(4):
            a = sum(weights[j, i].item() * inputs[b, i].item() for i in range(5))
            logistic = 1 / (1 + math.exp(-a))
            g = 1.0 if mask is None else mask[j].item() if mask.dim() == 1 else mask[b, j].item()
            for i in range(5):
                slope = logistic * (1 - logistic)
                expected[j, i] -= 0.1 * modulation[b, j].item() * g * slope * inputs[b, i].item()
    hidden = torch.sigmoid(inputs @ weights.T)
    change = hidden_update(inputs, hidden.detach(), modulation, learning_rate=0.1, gate=mask)
    np.testing.assert_allclose(change.numpy(), expected, rtol=1e-6)
    (hidden if mask is None else hidden * mask).backward(modulation)
    torch.testing.assert_close(change, -0.1 * weights.grad)


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (lambda z: delta_rule(z(2, 3), z(3, 2), z(3, 2), learning_rate=1.0), "hidden and output"),
        (
            lambda z: delta_rule(z(2, 3), z(2, 2), z(2, 1), learning_rate=1.0),
            r"target must have shape \(2, 2\)",
        ),
        (
            lambda z: delta_rule(z(2, 3), z(2, 2), z(2, 2), learning_rate=1.0, output_activation="relu"),
            "got 'relu'",
        ),
        (lambda z: hidden_update(z(2, 3), z(3, 2), z(3, 2), learning_rate=1.0), "inputs and hidden"),
        (lambda z: hidden_update(z(2, 3), z(2, 2), z(2, 1), learning_rate=1.0), "modulation must have shape"),
        (
            lambda z: hidden_update(z(2, 3), z(2, 2), z(2, 2), learning_rate=1.0, gate=z(3)),
            "gate must have shape",
        ),
    ),
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros)


def three_lists(generator):
    shapes = [(3, 4), (4,), (2, 1, 2)]
    return tuple([draw(generator, *shape) for shape in shapes] for _ in range(3))


def test_penalty_is_the_weighted_sum_of_squares(generator):
    parameters, anchors, importances = three_lists(generator)
    expected = 0.0
    for p, a, o in zip(parameters, anchors, importances, strict=True):
        for x, y, w in zip(p.flatten().tolist(), a.flatten().tolist(), o.flatten().tolist(), strict=True):
            expected += 0.5 * 3.0 * w * (x - y) ** 2
    assert quadratic_penalty(parameters, anchors, importances, 3.0).item() == pytest.approx(expected, rel=1e-6)


def test_added_gradient_is_that_of_the_penalty_and_in_place(generator):
    parameters, anchors, importances = three_lists(generator)
    leaves = [p.clone().requires_grad_() for p in parameters]
    quadratic_penalty(leaves, anchors, importances, 3.0).backward()
    start = [draw(generator, *p.shape) for p in parameters]
    gradients = [g.clone() for g in start]
    addresses = [g.data_ptr() for g in gradients]
    kept = [[t.clone() for t in tensors] for tensors in (parameters, anchors, importances)]
    add_quadratic_penalty_gradient_(gradients, leaves, anchors, importances, 3.0)
    for got, begun, leaf in zip(gradients, start, leaves, strict=True):
        torch.testing.assert_close(got, begun + leaf.grad, rtol=1e-6, atol=0)
    assert [g.data_ptr() for g in gradients] == addresses
    for tensors, before in zip(([leaf.detach() for leaf in leaves], anchors, importances), kept, strict=True):
        assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize(
    ("lists", "strength", "message"),
    (
        (([], [], []), 1.0, "no parameters"),
        (([torch.zeros(2)], [], [torch.zeros(2)]), 1.0, "1 parameters need as many anchors, got 0"),
        (([torch.zeros(2)], [torch.zeros(2)], [torch.zeros(1)]), 1.0, r"importances\[0\] has shape \(1,\)"),
        (([torch.zeros(2)], [torch.zeros(2)], [torch.zeros(2)]), -1.0, "strength must not be negative"),
    ),
)
def test_lists_that_do_not_fit_are_refused(lists, strength, message):
    with pytest.raises(ValueError, match=message):
        quadratic_penalty(*lists, strength)
    with pytest.raises(ValueError, match=message):
        add_quadratic_penalty_gradient_([torch.zeros_like(p) for p in lists[0]], *lists, strength)

"""Several draws of the weights on one batch, for the rules whose synapses are Gaussians."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, MESU, MetaplasticModule, Session
from tests.rules.test_bgd import X, Y, gradient_by_hand, mean_loss, noise, two_parameters

EXACT = float("inf")


def half_square(output, target):
    return 0.5 * (output - target).square().sum() / len(target)


def step(network, rule, loss=half_square, x=X, y=Y, **options):
    session, optimizer = Session(network, rule, loss=loss, **options), torch.optim.SGD(network.parameters(), lr=1.0)
    session.begin_experience()
    with session.step(x, y, optimizer):
        (F.cross_entropy if loss is None else loss)(network(x), y).backward()
    return session


@pytest.mark.parametrize("antithetic", (False, True))
def test_expectations_are_means_over_draws_of_the_same_batch(antithetic):
    network, rule = two_parameters(), BGD(deviation=0.5, limit=EXACT, draws=4, antithetic=antithetic, seed=7)
    step(network, rule)
    drawn = noise(7, 4)
    if antithetic:
        drawn = [drawn[0], -drawn[0], drawn[1], -drawn[1]]
    start = np.array([0.4, -0.3])
    gradients = [gradient_by_hand(start + 0.5 * epsilon) for epsilon in drawn]
    g = np.mean(gradients, 0)
    e = np.mean([a * b for a, b in zip(gradients, drawn, strict=True)], 0)
    np.testing.assert_allclose(network[0].weight.detach().numpy()[0], start - 0.25 * g, rtol=1e-12)
    deviation = 0.5 * np.sqrt(1 + (0.25 * e) ** 2) - 0.125 * e
    np.testing.assert_allclose(rule.state["deviation"]["0.weight"].numpy()[0], deviation, rtol=1e-12)


def correlations(draws, antithetic, trials=3000):
    """E[g ε] of one parameter of a quadratic loss, g = 1 + 2 σ ε, as the rule hands it to its update."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.constant_(network[0].weight, 1.0)
    seen = []

    class Recording(BGD):
        def move(self, means, deviations, gradients, correlations):
            seen.append(correlations[0].item())

    rule = Recording(deviation=0.3, limit=EXACT, draws=draws, antithetic=antithetic, seed=1)
    session, optimizer = Session(network, rule, loss=half_square), torch.optim.SGD(network.parameters(), lr=1.0)
    x, y = torch.full((1, 1), 2.0**0.5).double(), torch.full((1, 1), 2.0**-0.5).double()
    session.begin_experience()
    for _ in range(trials):
        with session.step(x, y, optimizer):
            half_square(network(x), y).backward()
    return torch.tensor(seen)


def test_the_noise_falls_with_the_draws_and_more_with_mirrored_pairs():
    # gε = ε + 0.6 ε²: variance 1 + 2 · 0.36, of which a mirrored pair keeps 2 · 0.36.
    one = correlations(1, False)
    assert one.mean().item() == pytest.approx(0.6, abs=0.1)
    assert one.var().item() == pytest.approx(1.72, rel=0.15)
    eight = correlations(8, False, trials=1500)
    assert eight.mean().item() == pytest.approx(0.6, abs=0.05)
    assert eight.var().item() == pytest.approx(1.72 / 8, rel=0.15)
    pair = correlations(2, True)
    assert pair.mean().item() == pytest.approx(0.6, abs=0.06)
    assert pair.var().item() == pytest.approx(0.72, rel=0.2)


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.mark.parametrize("rule", (BGD(deviation=0.3, draws=6, antithetic=True), MESU(deviation=0.3, draws=5)))
def test_one_batched_product_equals_one_draw_after_another(rule, labelled):
    x, y = labelled
    results = []
    for loss in (None, lambda output, target: F.cross_entropy(output, target)):
        network, own = classifier(), rule.clone()
        step(network, own, loss=loss, x=x, y=y)
        assert own._further._batched == (loss is None)
        results.append([*(p.detach() for p in network.parameters()), *own.state["deviation"].values()])
    for batched, looped in zip(*results, strict=True):
        torch.testing.assert_close(batched, looped, rtol=1e-10, atol=1e-12)


def test_networks_that_draw_random_numbers_or_keep_statistics_take_one_draw_after_another(labelled):
    x, y = labelled
    for part in (nn.Dropout(0.5), nn.BatchNorm1d(6)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 6), part, nn.Linear(6, 3)).double()
        before = network[0].weight.detach().clone()
        rule = BGD(deviation=0.1, draws=3)
        step(network, rule, loss=None, x=x, y=y)
        assert not rule._further._batched
        assert not torch.equal(network[0].weight, before)


def test_a_loss_that_is_not_the_hosts_is_refused_and_leaves_the_mean(labelled):
    x, y = labelled
    network, before = classifier(), classifier()
    session = Session(network, BGD(draws=2))  # It takes the loss to be the cross-entropy.
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    session.begin_experience()
    with pytest.raises(ValueError, match="another gradient"), session.step(x, y, optimizer):
        network(x).square().sum().backward()
    for parameter, value in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, value)


def test_accumulated_passes_take_their_own_draws(labelled):
    x, y = labelled
    results = []
    for parts in (1, 2):
        network = classifier()
        rule = BGD(deviation=0.2, draws=400, antithetic=True, limit=EXACT)
        module = MetaplasticModule(network, rule=rule)
        trainer = L.Trainer(
            max_epochs=1,
            accumulate_grad_batches=parts,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=8 // parts))
        results.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    change = results[0] - torch.cat([p.detach().flatten() for p in classifier().parameters()])
    # The same expectations, each from 400 draws; halves of the batch are two independent sets of them.
    assert (results[0] - results[1]).norm() < 0.2 * change.norm()


def test_a_plain_loop_that_accumulates_is_refused(labelled):
    x, y = labelled
    network = classifier()
    session = Session(network, BGD(draws=2))
    session.begin_experience()
    session.before_forward(x, y)
    F.cross_entropy(network(x), y).backward()
    session.after_backward()
    session.before_forward(x, y)
    F.cross_entropy(network(x), y).backward()
    with pytest.raises(ValueError, match="accumulated passes"):
        session.after_backward()


def test_one_draw_is_as_before():
    one, plain = two_parameters(), two_parameters()
    step(one, BGD(deviation=0.5, draws=1, seed=7))
    session, optimizer = (
        Session(plain, BGD(deviation=0.5, seed=7)),
        torch.optim.SGD(plain.parameters(), lr=1.0),
    )
    session.begin_experience()
    with session.step(X, None, optimizer):
        mean_loss(plain).backward()
    assert torch.equal(one[0].weight, plain[0].weight)


@pytest.mark.parametrize("rule", (BGD, MESU))
@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"draws": 0}, "at least 1"),
        ({"draws": 2.0}, "whole number"),
        ({"draws": 3, "antithetic": True}, "must be even"),
        ({"antithetic": True}, "must be even"),
    ),
)
def test_bad_draws(rule, arguments, message):
    with pytest.raises(ValueError, match=message):
        rule(**arguments)

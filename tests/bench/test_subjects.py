"""Subject and baseline of a benchmark do the same work, or the ratio would say nothing."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lit_meta.bench import benchmarks, naca, readout, rules, spiking, sums
from lit_meta.bench._work import batch, begun, fit, plain_step, session_step, squared_error
from lit_meta.core.session import Session
from lit_meta.cost import CostLedger
from lit_meta.functional import lif_step
from lit_meta.networks import build_network
from lit_meta.rules import EWC, NACA, Rule


def network() -> nn.Module:
    return build_network("mlp", inputs=8, hidden=[12], classes=4, seed=0)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_a_step_through_a_session_a_trainer_and_by_hand_is_the_same_step():
    x, y = batch(16, 8, 4)
    by_hand, through_session, through_trainer = network(), network(), network()
    before = weights(by_hand)
    step, other = plain_step(by_hand, x, y), session_step(begun(through_session, Rule()), x, y)
    for _ in range(3):
        step()
        other()
    fit(through_trainer, [(x, y)] * 3, callbacks=lambda: [CostLedger()])()
    assert not torch.equal(before, weights(by_hand))
    assert torch.equal(weights(by_hand), weights(through_session))
    assert torch.allclose(weights(by_hand), weights(through_trainer), atol=1e-7)


def test_the_fisher_information_of_subject_and_baseline_is_the_same():
    fused = list(rules.fisher()().values())
    for ours, looped in zip(fused, rules.fisher_by_a_loop()(), strict=True):
        assert torch.allclose(ours, looped, rtol=1e-3, atol=1e-8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Of BackPACK.
def test_the_fisher_information_of_backpack_is_the_same():
    pytest.importorskip("backpack")
    for ours, theirs in zip(rules.fisher()().values(), rules.fisher_by_backpack()(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-9)


def test_avalanches_step_makes_as_many_penalties_as_ours_remembers():
    from avalanche.training.plugins import EWCPlugin
    from avalanche.training.utils import ParamData

    subject = network()
    names = [name for name, _ in subject.named_parameters()]
    rule = EWC(strength=2.0)
    session = begun(subject, rule)
    plugin = EWCPlugin(1.0, mode="separate")
    for experience in range(2):
        importance = {n: torch.full_like(p, 1.0 + experience) for n, p in subject.named_parameters()}
        anchor = {n: p.detach() - 0.1 for n, p in subject.named_parameters()}
        plugin.importances[experience] = {n: ParamData(n, device="cpu", init_tensor=importance[n]) for n in names}
        plugin.saved_params[experience] = {n: ParamData(n, device="cpu", init_tensor=anchor[n]) for n in names}
    # One memory for both experiences, with the sum of the information: 2 * ½ in our penalty is Avalanche's 1.
    rule.state["importance"] = {n: torch.full_like(p, 3.0) for n, p in subject.named_parameters()}
    rule.state["anchor"] = anchor
    x, y = batch(16, 8, 4)
    clock = SimpleNamespace(train_exp_counter=2)
    strategy = SimpleNamespace(clock=clock, model=subject, device=torch.device("cpu"), loss=None)
    strategy.loss = squared_error(subject(x), y)
    plugin.before_backward(strategy)
    theirs = torch.autograd.grad(strategy.loss, list(subject.parameters()))
    optimizer = torch.optim.SGD(subject.parameters(), lr=0.0)
    with session.step(x, y, optimizer):
        squared_error(subject(x), y).backward()
    for parameter, gradient in zip(subject.parameters(), theirs, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_memory_of_naca_does_not_grow_with_the_steps_and_that_of_bptt_does():
    assert spiking.naca_memory(5)() == spiking.naca_memory(10)()
    assert spiking.bptt_memory(10)() / spiking.bptt_memory(5)() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("library", ("snntorch", "spikingjelly"))
def test_other_spiking_libraries_make_the_products_of_our_step_through_time(library):
    pytest.importorskip(library)
    from torch.utils.flop_counter import FlopCounterMode

    def flops(step) -> int:
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    theirs = getattr(spiking, f"{library}_step")
    assert flops(theirs(5, 30, 8)) == flops(spiking.bptt_step(5, (30,), 8)) > 0


def test_spikingjellys_neuron_fires_the_spikes_of_ours():
    pytest.importorskip("spikingjelly")
    currents = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    theirs, state, ours = spiking.spikingjelly_neuron()(currents), None, []
    for current in currents:
        spikes, state = lif_step(current, state)
        ours.append(spikes)
    assert torch.equal(torch.stack(ours), theirs)
    assert 0 < theirs.mean() < 1


def test_the_step_of_spikingjelly_learns(monkeypatch):
    pytest.importorskip("spikingjelly")
    moved = []
    step = torch.optim.SGD.step

    def watched(optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moved.append([bool(p.grad.any()) for p in parameters])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    work = spiking.spikingjelly_step(5, 30, 8)
    work()
    work()  # A second one starts from rest.
    assert moved == [[True, True]] * 2


def test_the_bare_products_are_those_that_the_ledger_counts():
    x, y = batch(256, 784, 10)
    ledger = CostLedger()
    wide = build_network("mlp", inputs=784, hidden=[20, 20], classes=10, seed=0)
    fit(copy.deepcopy(wide), [(x, y)], rule=NACA(), callbacks=[ledger])()
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        naca.bare_products(2, width=20)()
    cost = ledger.total
    assert counter.get_total_flops() == 2 * (cost.forward_macs + cost.local_macs + cost.backward_macs)


def test_every_benchmark_has_words_for_its_table():
    for benchmark in benchmarks().values():
        assert benchmark.subject
        assert benchmark.target is None or benchmark.target > 0


def test_the_readout_learns_the_class_that_backpropagation_passes_over_once(monkeypatch):
    work = readout.learn_one_class(filters=(2, 2, 2), expansion=20, samples=600)
    work()
    session = next(cell.cell_contents for cell in work.__closure__ if isinstance(cell.cell_contents, Session))
    assert session.rules[1].state.overall["class_counts"].sum() == 600
    assert bool(session.network.head.weight.any())
    steps = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: steps.append(step(self)))
    readout.backpropagate_one_class(channels=(2, 2), hidden=4, samples=600)()
    assert len(steps) == 19  # Batches of 32.


def test_a_readout_and_scikit_learns_ridge_find_the_same_weights():
    ours, theirs = sums.readout(width=40, samples=700)(), sums.sklearn_ridge(width=40, samples=700)()
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-4)


def test_our_discriminant_analysis_and_scikit_learns_find_the_same_head():
    # 300 samples of 40 features: neither the covariance nor its shrinkage is negligible.
    ours, theirs = (make(width=40, samples=300)() for make in (sums.discriminant, sums.sklearn_discriminant))
    coefficients = torch.from_numpy(theirs.coef_)
    apart = ours.weight.detach().double() - ours.weight.detach().double().mean(0)
    torch.testing.assert_close(apart, coefficients - coefficients.mean(0), atol=1e-4, rtol=1e-4)
    unseen, _ = sums._samples(2_000, 40)
    predictions = ours(unseen).argmax(1)
    assert predictions.tolist() == theirs.predict(unseen.double().numpy()).tolist()
    assert len(predictions.unique()) > 5


def test_the_recursion_is_ridge_regression_without_an_intercept():
    x, y = sums._samples(200, 30)
    h = x.double()
    ridge = 1e-3 * float(h.square().sum(0).mean()) * torch.eye(30).double()
    expected = torch.linalg.solve(h.T @ h + ridge, h.T @ nn.functional.one_hot(y, 10).double()).T
    torch.testing.assert_close(sums.recursion(width=30, samples=200)(), expected, atol=1e-8, rtol=1e-6)

"""Fabric as a host: names of the network itself, every precision, loaders that shuffle."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import BGD, EWC, FabricSession, RecursiveReadout, Session


def samples(seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(48, 6, generator=generator), torch.randint(0, 3, (48,), generator=generator))


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def fit(rule, *, precision="32-true", shuffle=False, loss=F.cross_entropy) -> tuple[nn.Module, FabricSession]:
    fabric = L.Fabric(accelerator="cpu", devices=1, precision=precision)
    plain = network()
    module, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.05))
    loader = fabric.setup_dataloaders(DataLoader(samples(), batch_size=12, shuffle=shuffle))
    session = FabricSession(fabric, module, rule, loss=None if loss is F.cross_entropy else loss)
    with session.experience(loader):
        for inputs, targets in loader:
            with session.step(inputs, targets, optimizer):
                fabric.backward(loss(module(inputs), targets))
    return plain, session


def test_memory_goes_from_fabric_to_a_plain_loop():
    plain, session = fit(EWC())
    assert set(session.rules[0].state["importance"]) == {name for name, _ in plain.named_parameters()}
    other = Session(network(), EWC())
    other.load_state_dict(session.state_dict())
    assert other.experiences == 1


@pytest.mark.parametrize("precision", ("64-true", "bf16-mixed", "bf16-true"))
@pytest.mark.parametrize("rule", (EWC, RecursiveReadout, BGD))
def test_consolidation_has_the_precision_of_training(precision, rule):
    session = fit(rule(), precision=precision)[1]
    memory = session.rules[0].state
    assert all(bool(torch.isfinite(t).all()) for t in memory.state_dict().values() if t.is_floating_point())
    if rule is EWC:
        importance = torch.cat([t.flatten().double() for t in memory["importance"].values()])
        expected = torch.cat([t.flatten().double() for t in fit(EWC())[1].rules[0].state["importance"].values()])
        assert float(importance.sum()) == pytest.approx(float(expected.sum()), rel=0.05)


def test_shuffling_decides_nothing_of_what_is_consolidated():
    fabric = L.Fabric(accelerator="cpu", devices=1)
    importances = []
    for shuffle in (True, False):
        plain = network()
        module, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.05))
        loader = fabric.setup_dataloaders(DataLoader(samples(), batch_size=12, shuffle=shuffle))
        session = FabricSession(fabric, module, EWC())
        session.begin_experience()
        x, y = samples().tensors
        with session.step(x, y, optimizer):  # The same step, so that only the order of reading differs.
            fabric.backward(F.cross_entropy(module(x), y))
        before = torch.get_rng_state()
        session.end_experience(loader)
        assert torch.equal(before, torch.get_rng_state())
        importances.append(session.rules[0].state["importance"])
    for name, importance in importances[0].items():
        assert torch.equal(importance, importances[1][name])


def test_a_loss_of_ones_own_is_what_rules_differentiate():
    def squared(outputs, targets):
        return (outputs - F.one_hot(targets, 3)).square().mean()

    plain, session = fit(EWC(), loss=squared)
    total = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    for x, y in samples():
        plain.zero_grad()
        squared(plain(x[None]), y[None]).backward()
        for name, parameter in plain.named_parameters():
            total[name] += parameter.grad**2 / 48
    for name, importance in session.rules[0].state["importance"].items():
        torch.testing.assert_close(importance, total[name], rtol=1e-4, atol=1e-8)

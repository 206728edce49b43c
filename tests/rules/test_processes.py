"""Several processes learn what one does of the same global batches, for every rule, or the rule refuses before it trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import Metaplasticity, MetaplasticModule, Session
from lit_meta.core.experience_data import PlainData
from lit_meta.integrations import _lightning
from lit_meta.rules import MAS, OWM, RULES, SI, Rule, XdG
from tests.rules import drivers
from tests.rules.test_contract import from_config

BATCH = 12  # Of all processes together.
# Sums over samples are added in another order, and momentum carries the difference on: at most 1e-7 was measured.
RTOL, ATOL = 1e-5, 1e-6
# Starting four takes too long on two cores for every run of the suite: `make processes`.
WORLDS = (2, 4) if os.environ.get("LIT_META_ALL_PROCESSES") else (2,)


def learners() -> dict[str, Rule | list[Rule]]:
    """Every rule as its config has it, and what depends on batches in other settings."""
    rules: dict[str, Rule | list[Rule]] = {name: from_config(name) for name in RULES}
    more = {
        "owm-samples": OWM(inputs="samples"),
        "mas-online": MAS(interval=2),
        "si-xdg": [SI(strength=2.0), XdG(gated=0.5)],
    }
    return {**rules, **more}


def refuses(rule: Rule | list[Rule]) -> bool:
    return isinstance(rule, Rule) and "distributed" in rule.limits


def alone(rule, network, data) -> torch.Tensor:
    for x, y in data:
        trainer = drivers.trainer(callbacks=[Metaplasticity(rule, network="body")], max_epochs=1)
        trainer.fit(drivers.UserModule(network), DataLoader(TensorDataset(x, y), batch_size=BATCH))
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
@pytest.mark.parametrize("world", WORLDS)
def test_processes_learn_what_one_does(world, two_experiences, make_network, tmp_path):
    """One launch serves all rules: starting processes costs more than the training."""
    torch.save(two_experiences, tmp_path / "data.pt")
    torch.save(make_network(), tmp_path / "network.pt")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={world}",
    ]
    done = subprocess.run(
        [*command, "-m", "tests.rules.two_processes", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = torch.load(tmp_path / f"weights-{world}.pt")
    accuracy, fsdp = results.pop("accuracy"), results.pop("fsdp")
    assert results.keys() == learners().keys()
    for name, rule in learners().items():
        weights = results[name]
        if refuses(rule):
            assert isinstance(weights, str), name
            assert "does not work with several processes" in weights
            assert "\n" not in weights
            continue
        assert torch.is_tensor(weights), f"{name}: {weights}"
        one = alone(rule, make_network(), two_experiences)
        torch.testing.assert_close(weights, one, rtol=RTOL, atol=ATOL, msg=lambda text, name=name: f"{name}: {text}")
    assert "is split between processes (FSDP" in fsdp
    x, y = two_experiences[0][0][:11], two_experiences[0][1][:11]
    expected = (make_network()(x).argmax(1) == y).double().mean()
    assert accuracy == pytest.approx(float(expected), abs=1e-6)


def test_a_mean_is_over_what_one_step_saw(two_experiences, make_network):
    """The batches that two processes read in one step are one batch of a mean."""
    (x, y), _ = two_experiences
    projectors = []
    for size, together in ((12, 1), (6, 2), (3, 4)):
        network, rule = make_network(), OWM(inputs="mean")
        session = Session(network, rule)
        session.begin_experience()
        with session.step(x, y, torch.optim.SGD(network.parameters(), lr=0.0)):
            torch.nn.functional.cross_entropy(network(x), y).backward()
        data = PlainData(network, DataLoader(TensorDataset(x, y), batch_size=size))
        data.batches_per_step = together
        session.end_experience(data)
        projectors.append(rule.state["projector"]["2"])
    torch.testing.assert_close(projectors[1], projectors[0])
    torch.testing.assert_close(projectors[2], projectors[0])


@pytest.mark.parametrize("samples", (1, 5, 7, 8, 11))
@pytest.mark.parametrize("world", (2, 4))
def test_every_sample_counts_once_however_it_is_shared_out(samples, world):
    counted = 0
    for rank in range(world):
        sampler = torch.utils.data.DistributedSampler(range(samples), num_replicas=world, rank=rank, shuffle=False)
        loader = DataLoader(torch.arange(samples), batch_size=2, sampler=sampler)
        for number, batch in enumerate(loader):
            kept = _lightning.genuine_samples({"one": loader}, 0, number, len(batch))
            assert batch[:kept].tolist() == [i for i in batch.tolist() if i % world == rank][:kept]
            counted += kept
    assert counted == samples
    assert _lightning.genuine_samples([DataLoader(torch.arange(3))], 0, 0, 3) is None


def test_strategies_that_split_parameters_are_refused(make_network):
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    assert _lightning.splits_parameters(ModelParallelStrategy())
    assert not _lightning.splits_parameters(DDPStrategy())
    module = MetaplasticModule(make_network(), rule=from_config("ewc"))
    trainer = drivers.trainer()
    trainer.strategy.__class__ = type("FSDPStrategy", (type(trainer.strategy),), {})
    with pytest.raises(ValueError, match=r"FSDPStrategy splits parameters between processes, .* use strategy='ddp'"):
        module.plasticity.setup(trainer, module, "fit")

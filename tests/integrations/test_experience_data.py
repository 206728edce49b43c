"""Consolidation sees the batches that the training steps got: samples, limits, hooks, types, loaders."""

from __future__ import annotations

import random
from collections import Counter

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lit_meta import (
    EWC,
    MAS,
    OWM,
    SI,
    Metaplasticity,
    MetaplasticityPlugin,
    MetaplasticModule,
    RecursiveReadout,
    Session,
)
from lit_meta.rules import Rule
from tests.rules.drivers import UserModule, trainer

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(40) // 20  # Sorted by class, as folders of images are.


class Batches:
    """Batches that are no loader's."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class Reads(Rule):
    """Remembers what it reads when an experience ends."""

    def __init__(self):
        super().__init__()
        self.read = []

    def end_experience(self, synapses, experience):
        self.read = list(experience.batches())


class Remembers(UserModule):
    """Remembers what its training steps got."""

    def __init__(self, network):
        super().__init__(network)
        self.got = []

    def training_step(self, batch, batch_idx):
        self.got.append(batch)
        return super().training_step(batch, batch_idx)


def small(seed=0, outputs=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, outputs))


def fisher(network, samples, loss):
    """E[g²], one plain backward pass for each sample."""
    network.eval()
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for sample in samples:
        network.zero_grad()
        loss(sample).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad**2 / len(samples)
    network.zero_grad()
    return total


def class_fisher(network, x, y):
    return fisher(
        network, list(zip(x.split(1), y.split(1), strict=True)), lambda s: F.cross_entropy(network(s[0]), s[1])
    )


def check(importance, expected, rtol=1e-4):
    for name, tensor in expected.items():
        torch.testing.assert_close(importance[name], tensor, rtol=rtol, atol=1e-7)


def rows(batches):
    """How often each sample of X comes."""
    found = torch.cat([batch[0] for batch in batches])
    return Counter((found[:, None] == X).all(2).nonzero()[:, 1].tolist())


def proportional(one, two):
    return one.keys() == two.keys() and len({one[key] / two[key] for key in one}) == 1


LOADERS = {
    "shuffled": lambda: DataLoader(TensorDataset(X, Y), batch_size=6, shuffle=True),
    "shuffled, last batch dropped": lambda: DataLoader(TensorDataset(X, Y), batch_size=6, shuffle=True, drop_last=True),
    "in order, last batch dropped": lambda: DataLoader(TensorDataset(X, Y), batch_size=6, drop_last=True),
    "subset": lambda: DataLoader(TensorDataset(X, Y), batch_size=6, sampler=SubsetRandomSampler([3, 5, 8, 13, 21, 34])),
    "weighted": lambda: DataLoader(
        TensorDataset(X, Y), batch_size=6, sampler=WeightedRandomSampler([1.0] * 20 + [5.0] * 20, 24)
    ),
    "batch sampler": lambda: DataLoader(
        TensorDataset(X, Y), batch_sampler=BatchSampler(SubsetRandomSampler(range(30)), 7, drop_last=False)
    ),
    "own batch sampler": lambda: DataLoader(TensorDataset(X, Y), batch_sampler=[[0, 1, 2], [20, 3], [0, 39]]),
    "own generator": lambda: DataLoader(
        TensorDataset(X, Y), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "no loader": lambda: Batches(((X[:7], Y[:7]), (X[30:], Y[30:]), (X[7:9], Y[7:9]))),
}


@pytest.mark.parametrize("options", ({}, {"limit_train_batches": 2}, {"max_steps": 3, "max_epochs": 2}), ids=str)
@pytest.mark.parametrize("epochs", (1, 3))
@pytest.mark.parametrize("kind", LOADERS)
def test_the_samples_that_were_learned_are_read_each_as_often(kind, epochs, options):
    rule, module, loader = Reads(), Remembers(small()), LOADERS[kind]()
    before = getattr(loader, "batch_sampler", None)
    torch.manual_seed(7)
    trainer(callbacks=[Metaplasticity(rule, network="body")], **{"max_epochs": epochs, **options}).fit(module, loader)
    learned, read = rows(module.got), rows(rule.read)
    if (options.get("max_steps") and "in order" in kind) or kind == "list":
        assert read.keys() == learned.keys()
    else:
        assert proportional(read, learned)
    assert getattr(loader, "batch_sampler", None) is before


def test_the_order_is_that_of_the_data_set_whatever_the_shuffling():
    orders = []
    for seed in (0, 1):
        rule = Reads()
        torch.manual_seed(seed)
        trainer(callbacks=[Metaplasticity(rule, network="body")], max_epochs=1).fit(
            UserModule(small()), LOADERS["shuffled"]()
        )
        orders.append(torch.cat([x for x, _ in rule.read]))
        assert torch.equal(orders[-1], X)


def test_only_the_batches_within_the_limit_have_importance():
    module = MetaplasticModule(small(), rule=EWC())
    trainer(limit_train_batches=2, max_epochs=1).fit(module, DataLoader(TensorDataset(X, Y), batch_size=5))
    check(module.plasticity.rules[0].state["importance"], class_fisher(module.network, X[:10], Y[:10]))


@pytest.mark.parametrize("hook", ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device"))
@pytest.mark.parametrize("place", ("module", "data module"))
@pytest.mark.filterwarnings(
    "ignore:You have overridden .* in `LightningModule` but have passed in a `LightningDataModule`"
)
def test_batches_come_through_the_hooks_of_their_transfer(hook, place):
    raw = torch.randint(0, 256, (40, 4), generator=torch.Generator().manual_seed(0)).float()

    def scaled(self, batch, *_):
        return batch[0] / 255.0, batch[1]

    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(raw, Y), batch_size=10, shuffle=True)

    Scaling = type("Scaling", (MetaplasticModule,), {hook: scaled} if place == "module" else {})
    Scaled = type("Scaled", (Data,), {hook: scaled} if place == "data module" else {})
    module = Scaling(small(), rule=EWC())
    trainer(max_epochs=1).fit(module, datamodule=Scaled())
    check(module.plasticity.rules[0].state["importance"], class_fisher(module.network, raw / 255, Y))
    module = Scaling(small(), rule=OWM(inputs="samples", regularization=1.0))
    trainer(max_epochs=1).fit(module, datamodule=Scaled())
    seen = torch.cat([torch.ones(40, 1), raw / 255], 1).double()
    expected = torch.linalg.inv(torch.eye(5).double() + seen.T @ seen)
    torch.testing.assert_close(module.plasticity.rules[0].state["projector"]["0"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ("64-true", "bf16-true", "16-true", "bf16-mixed"))
@pytest.mark.parametrize("rule", (EWC(), EWC(labels="exact"), MAS(), OWM(), SI()), ids=lambda r: repr(r)[:25])
@pytest.mark.filterwarnings("ignore:.*bf16 is supported for historical reasons")
def test_true_precision_converts_batches_for_consolidation_too(precision, rule):
    memory = {}
    for kind in ("32-true", precision):
        module = MetaplasticModule(small(outputs=4), rule=rule.clone())
        trainer(precision=kind, max_epochs=1).fit(module, DataLoader(TensorDataset(X, Y), batch_size=10))
        memory[kind] = module.plasticity.rules[0].state.state_dict()
    assert memory[precision].keys() == memory["32-true"].keys()
    for key, tensor in memory["32-true"].items():
        if key.startswith(("importance", "projector")):
            size = tensor.abs().max().double()
            difference = (memory[precision][key].double() - tensor.double()).abs().max()
            assert difference < (1e-5 if precision == "64-true" else 0.05) * size


def joined(batch):
    return torch.cat([batch["new"][0], batch["old"][0]]), torch.cat([batch["new"][1], batch["old"][1]])


@pytest.mark.parametrize("mode", ("dict", "max_size_cycle", "min_size"))
def test_several_loaders_at_once(mode):
    loaders = {
        "new": DataLoader(TensorDataset(X[:20], Y[:20]), batch_size=10, shuffle=True),
        "old": DataLoader(TensorDataset(X[20:], Y[20:]), batch_size=5, shuffle=True),
    }
    module = MetaplasticModule(small(), rule=EWC(), unpack=joined)
    data = loaders if mode == "dict" else CombinedLoader(loaders, mode)
    trainer(max_epochs=1).fit(module, data)
    importance = module.plasticity.rules[0].state["importance"]
    if mode == "min_size":  # Of the longer loader a part was learned, which shuffling decides.
        assert all((tensor > 0).all() for tensor in importance.values())
    else:  # The shorter one comes round again.
        picked = torch.cat([torch.arange(20).repeat(2), torch.arange(20, 40)])
        check(importance, class_fisher(module.network, X[picked], Y[picked]))


class Several(UserModule):
    def training_step(self, batch, batch_idx):
        x, y = joined(batch)
        return F.mse_loss(self(x), F.one_hot(y).float())


def test_rows_of_several_loaders_are_not_taken_for_one_sample():
    loaders = {name: DataLoader(TensorDataset(X, Y), batch_size=10) for name in ("new", "old")}
    with pytest.raises(ValueError, match=r"EWC could not consolidate .* a batch comes from several loaders at once"):
        trainer(callbacks=[Metaplasticity(EWC(), network="body")]).fit(Several(small()), loaders)


class TwoOptimizers(UserModule):
    """A step of weights and one of biases, of one loss."""

    def __init__(self, network):
        super().__init__(network)
        self.automatic_optimization = False

    def configure_optimizers(self):
        weights = [p for p in self.parameters() if p.dim() > 1]
        return torch.optim.SGD(weights, lr=0.1), torch.optim.SGD([p for p in self.parameters() if p.dim() == 1], lr=0.1)

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()


@pytest.mark.parametrize(
    ("rule", "advice"),
    (
        (EWC(), "say loss='cross_entropy' or 'mse'"),
        (MAS(), "use a rule that reads no data"),
        (OWM(), "use a rule that"),
    ),
)
def test_of_several_optimizers_there_is_no_one_loss_and_the_advice_suits_the_rule(rule, advice):
    module = TwoOptimizers(small())
    start = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=f"steps several optimizers, .* no one loss to differentiate: {advice}"):
        trainer(callbacks=[Metaplasticity(rule)]).fit(module, DataLoader(TensorDataset(X, Y), batch_size=10))
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), start, strict=True))


def test_the_loss_that_is_named_takes_the_place_of_those_of_several_optimizers():
    module, callback = TwoOptimizers(small()), Metaplasticity(EWC(loss="cross_entropy"), network="body")
    trainer(callbacks=[callback]).fit(module, DataLoader(TensorDataset(X, Y), batch_size=10))
    check(callback.rules[0].state["importance"], class_fisher(module.body, X, Y))


def test_several_loaders_are_put_together_for_a_rule_that_takes_no_name_of_a_loss():
    loaders = {name: DataLoader(TensorDataset(X, Y), batch_size=10) for name in ("new", "old")}
    with pytest.raises(ValueError, match=r"several loaders at once, .* is not one sample: put the data sets together"):
        trainer(callbacks=[Metaplasticity(MAS())]).fit(Several(small()), loaders)


@pytest.mark.parametrize("rule", (EWC(samples=20), MAS(samples=20)), ids=lambda r: type(r).__name__)
def test_a_limited_number_of_samples_shows_all_classes(rule):
    x = torch.eye(4)[Y]  # Class 0 uses the first input only, class 1 the second.
    module = MetaplasticModule(nn.Sequential(nn.Linear(4, 2, bias=False)), rule=rule.clone())
    trainer(max_epochs=1).fit(module, DataLoader(TensorDataset(x, Y), batch_size=10, shuffle=True))
    importance = module.plasticity.rules[0].state["importance"]["0.weight"].sum(0)
    assert (importance[:2] > 0).all()


class Stream(IterableDataset):
    """Samples one after another, for ever where ``end`` is None."""

    def __init__(self, end):
        self.end = end
        self.given = 0

    def __iter__(self):
        position = 0
        while self.end is None or position < self.end:
            self.given += 1
            yield X[position % 40], Y[position % 40]
            position += 1


def test_a_stream_with_an_end_is_read_to_its_end():
    module = MetaplasticModule(small(), rule=EWC())
    trainer(max_epochs=2).fit(module, DataLoader(Stream(30), batch_size=8))
    check(module.plasticity.rules[0].state["importance"], class_fisher(module.network, X[:30], Y[:30]))


def test_a_stream_without_an_end_is_refused_before_anything_is_learned():
    for rule in (EWC(), OWM()):
        module = MetaplasticModule(small(), rule=rule)
        start, stream = [p.clone() for p in module.parameters()], Stream(None)
        with pytest.raises(ValueError, match=r"have no end that is known: .*Trainer\(limit_train_batches=...\)"):
            trainer(max_steps=5, max_epochs=-1).fit(module, DataLoader(stream, batch_size=8))
        assert all(torch.equal(p, q) for p, q in zip(module.parameters(), start, strict=True))
        assert stream.given <= 16


@pytest.mark.parametrize(
    ("rule", "options"), ((EWC(samples=10), {"max_steps": 5}), (EWC(), {"limit_train_batches": 5}))
)
def test_a_stream_without_an_end_is_read_as_far_as_training_went(rule, options):
    module = MetaplasticModule(small(), rule=rule.clone())
    trainer(**{"max_epochs": 1, **options}).fit(module, DataLoader(Stream(None), batch_size=8))
    importance = module.plasticity.rules[0].state["importance"]
    if rule.samples is None:
        check(importance, class_fisher(module.network, X, Y))
    else:
        assert all((tensor > 0).any() for tensor in importance.values())


def test_rules_that_read_no_data_take_a_stream_without_an_end():
    module = MetaplasticModule(small(), rule=SI())
    trainer(max_steps=3, max_epochs=-1).fit(module, DataLoader(Stream(None), batch_size=8))
    assert "importance" in module.plasticity.rules[0].state


def test_data_that_can_be_read_once_are_refused_before_anything_is_learned():
    module = MetaplasticModule(small(), rule=EWC())
    start = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match="a generator can be read only once: give a loader or a list"):
        trainer(max_epochs=1).fit(module, ((x, y) for x, y in zip(X.split(8), Y.split(8), strict=True)))
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), start, strict=True))


class Reloaded(L.LightningDataModule):
    """Other samples every time that it is asked for a loader."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def train_dataloader(self):
        self.asked += 1
        return DataLoader(TensorDataset(X * self.asked, Y), batch_size=8)


def test_loaders_that_are_made_anew_are_refused_where_a_rule_reads_them_again():
    module = MetaplasticModule(small(), rule=EWC())
    start = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=r"reload_dataloaders_every_n_epochs=2 has put others in their place"):
        trainer(max_epochs=3, reload_dataloaders_every_n_epochs=2).fit(module, Reloaded())
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), start, strict=True))


def test_loaders_that_are_made_anew_are_taken_where_all_data_are_those_of_the_last_one():
    fitted, data = trainer(max_epochs=2, reload_dataloaders_every_n_epochs=2), Reloaded()
    module = MetaplasticModule(small(), rule=EWC())
    for fits in (1, 2):  # Lightning counts epochs over all fits.
        fitted.fit_loop.max_epochs = 2 * fits
        fitted.fit(module, data)
        assert (data.asked, module.plasticity.session.experiences) == (fits, fits)


@pytest.mark.parametrize("rule", (SI, lambda: RecursiveReadout(ridge=0.1)))
def test_rules_that_read_no_data_again_learn_from_loaders_made_anew(rule):
    module, data = MetaplasticModule(small(), rule=rule()), Reloaded()
    trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(module, data)
    assert data.asked == 3
    if isinstance(module.plasticity.rules[0], RecursiveReadout):
        memory = module.plasticity.rules[0].state.overall
        total = (memory["class_sums"] + memory["class_counts"][:, None] * memory["shift"]).sum(0)
        torch.testing.assert_close(total, (X.sum(0) * (1 + 2 + 3)).double(), rtol=1e-4, atol=1e-4)


class Noisy(Dataset):
    """Draws from every global generator at every sample."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + 0.0 * (torch.rand(()) + random.random() + float(np.random.rand())), Y[index]  # noqa: NPY002


@pytest.mark.parametrize("rule", (EWC(), MAS(), OWM(), EWC(samples=7)), ids=lambda r: repr(r)[:3])
def test_consolidation_leaves_all_generators_where_they_stood(rule):
    states = []
    for one in (None, rule.clone()):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(0)
        module = MetaplasticModule(small(), rule=one)
        trainer(max_epochs=1).fit(module, DataLoader(Noisy(), batch_size=10, shuffle=True))
        states.append((torch.rand(()).item(), random.random(), float(np.random.rand())))  # noqa: NPY002
    assert states[0] == states[1]


def test_a_plain_loop_reads_a_loader_with_a_sampler_of_its_own():
    network, rule = small(), Reads()
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.1)
    loader = LOADERS["subset"]()
    state = torch.get_rng_state()
    with session.experience(loader), session.step(X, Y, optimizer):
        F.cross_entropy(network(X), Y).backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert rows(rule.read) == Counter([3, 5, 8, 13, 21, 34])


def multitask(rule, **plugins):
    from avalanche.benchmarks import nc_benchmark
    from avalanche.models import MTSimpleMLP
    from avalanche.training import Naive

    sets = []
    for _ in range(2):
        data = TensorDataset(torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(2)), torch.arange(40) % 4)
        data.targets = (torch.arange(40) % 4).tolist()
        sets.append(data)
    benchmark = nc_benchmark(*sets, n_experiences=2, task_labels=True, shuffle=False)
    torch.manual_seed(0)
    model = MTSimpleMLP(input_size=4, hidden_size=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        plugins=[MetaplasticityPlugin(rule)],
        evaluator=None,
    )
    return benchmark, strategy, model


def test_models_that_take_task_labels_are_called_with_them():
    rule = EWC()
    benchmark, strategy, model = multitask(rule)
    for number, experience in enumerate(benchmark.train_stream):
        before = {name: tensor.clone() for name, tensor in rule.state["importance"].items()} if number else {}
        strategy.train(experience)
        samples = [(x.unsqueeze(0), torch.tensor([y])) for x, y, _ in experience.dataset]
        expected = fisher(model, samples, lambda s, task=number: F.cross_entropy(model(s[0], task), s[1]))
        measured = rule.state["importance"]
        check({n: t - before.get(n, torch.zeros_like(t)) for n, t in measured.items()}, expected, rtol=1e-3)
    for other in (MAS(), OWM(), SI()):
        benchmark, strategy, model = multitask(other)
        for experience in benchmark.train_stream:
            strategy.train(experience)
        assert len(other.state)


@pytest.mark.filterwarnings("ignore:Call to deprecated function update")
def test_a_replay_memory_is_part_of_what_the_strategy_trained_on():
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.training import Naive
    from avalanche.training.plugins import ReplayPlugin

    sets = []
    for part in (slice(0, 20), slice(20, 40)):
        data = TensorDataset(X[part], Y[part])
        data.targets = Y[part].tolist()
        sets.append(as_classification_dataset(data))
    benchmark = with_classes_timeline(benchmark_from_datasets(train=sets))
    rule, network = Reads(), small()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    strategy = Naive(
        model=network,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=10,
        plugins=[MetaplasticityPlugin(rule), ReplayPlugin(mem_size=10)],
        evaluator=None,
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    labels = torch.cat([batch[1] for batch in rule.read])
    assert (labels == 0).any()
    assert (labels == 1).any()

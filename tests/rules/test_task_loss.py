"""Importances of what training itself computes: any loss, any batch, any call of the network."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_meta import BGD, EWC, MAS, NACA, OWM, SI, UPGD, CostLedger, Metaplasticity, MetaplasticModule, Session
from tests.rules.drivers import trainer

G = torch.Generator().manual_seed(0)


class Module(L.LightningModule):
    """A LightningModule made of a network and a step."""

    def __init__(self, net, step):
        super().__init__()
        self.net = net
        self.step = step

    def training_step(self, batch, batch_idx):
        return self.step(self, batch)

    def forward(self, *arguments, **named):
        return self.net(*arguments, **named)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x, z):
        return self.head(torch.tanh(self.one(x) + self.two(z)))


class Tokens(nn.Module):
    """Labels of every token, with a mask."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 5), nn.Linear(5, 3)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.head(torch.tanh(self.embedding(input_ids) * attention_mask.unsqueeze(-1))))


def token_step(module, batch):
    logits = module(batch["input_ids"], batch["attention_mask"]).logits
    return F.cross_entropy(logits.transpose(1, 2), batch["labels"])


@dataclass
class Situation:
    net: object
    step: object
    samples: list


def pairs(x, y):
    return list(zip(x, y, strict=True))


def plain(loss):
    return lambda module, batch: loss(module(batch[0]), batch[1])


def texts(ids, mask, labels):
    names = ("input_ids", "attention_mask", "labels")
    return [dict(zip(names, sample, strict=True)) for sample in zip(ids, mask, labels, strict=True)]


def normal(*shape):
    return torch.randn(*shape, generator=G)


def integers(high, *shape):
    return torch.randint(high, shape, generator=G)


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs))


SITUATIONS = {
    "regression": lambda: Situation(mlp(4, 1), plain(F.mse_loss), pairs(normal(20, 4), normal(20, 1))),
    "regression, one number without a dimension": lambda: Situation(
        mlp(4, 1), lambda m, b: F.mse_loss(m(b[0])[:, 0], b[1]), pairs(normal(20, 4), normal(20))
    ),
    "two classes, one output": lambda: Situation(
        mlp(4, 1),
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], b[1].float()),
        pairs(normal(20, 4), integers(2, 20)),
    ),
    "several labels": lambda: Situation(
        mlp(4, 5), plain(F.binary_cross_entropy_with_logits), pairs(normal(20, 4), integers(2, 20, 5).float())
    ),
    "smoothed labels": lambda: Situation(
        mlp(4, 3), plain(nn.CrossEntropyLoss(label_smoothing=0.3)), pairs(normal(20, 4), integers(3, 20))
    ),
    "cross-entropy and a penalty": lambda: Situation(
        mlp(4, 3),
        lambda m, b: F.cross_entropy(m(b[0]), b[1]) + 0.1 * m.net[0].weight.square().sum(),
        pairs(normal(20, 4), integers(3, 20)),
    ),
    "a summed loss": lambda: Situation(
        mlp(4, 3), plain(nn.CrossEntropyLoss(reduction="sum")), pairs(normal(20, 4), integers(3, 20))
    ),
    "segmentation": lambda: Situation(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)),
        plain(F.cross_entropy),
        pairs(normal(8, 1, 5, 5), integers(3, 8, 5, 5)),
    ),
    "labels of tokens, a dict": lambda: Situation(
        Tokens(),
        token_step,
        [
            {"input_ids": i, "attention_mask": m, "labels": y}
            for i, m, y in zip(integers(9, 12, 4), torch.ones(12, 4), integers(3, 12, 4), strict=True)
        ],
    ),
    "two inputs": lambda: Situation(
        TwoInputs(),
        lambda m, b: F.cross_entropy(m(b[0], b[1]), b[2]),
        list(zip(normal(20, 3), normal(20, 2), integers(2, 20), strict=True)),
    ),
    "a dict that is returned, with names of files": lambda: Situation(
        mlp(4, 1),
        lambda m, b: {"loss": F.mse_loss(m(b["image"]), b["level"]), "files": b["file"]},
        [{"image": x, "level": y, "file": f"{i}.png"} for i, (x, y) in enumerate(pairs(normal(20, 4), normal(20, 1)))],
    ),
    "batch normalisation and dropout": lambda: Situation(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 1)),
        plain(F.mse_loss),
        pairs(normal(20, 4), normal(20, 1)),
    ),
    "a step that does not call forward": lambda: Situation(
        mlp(4, 2),
        lambda m, b: F.huber_loss(m.net[2](torch.relu(m.net[0](b[0]))), b[1]),
        pairs(normal(20, 4), normal(20, 2)),
    ),
    "a part that is cut off": lambda: Situation(
        mlp(4, 3),
        lambda m, b: F.cross_entropy(m.net[2](m.net[1](m.net[0](b[0])).detach()), b[1]),
        pairs(normal(20, 4), integers(3, 20)),
    ),
}


def fitted(situation, rule, **options):
    made = SITUATIONS[situation]()
    module = Module(made.net, made.step)
    loader = DataLoader(made.samples, batch_size=4, shuffle=True)
    trainer(callbacks=[Metaplasticity(rule)], max_epochs=1, **options).fit(module, loader)
    return module, list(DataLoader(made.samples, batch_size=1))


def by_hand(module, batches, scalar, power):
    module.eval()
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for batch in batches:
        module.zero_grad()
        scalar(batch).backward()
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.abs() ** power / len(batches)
    return total


def same(importance, expected):
    assert importance.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(importance[name], tensor, rtol=1e-4, atol=1e-6 * float(tensor.abs().max()))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_information_is_of_the_loss_that_training_minimises(situation):
    rule = EWC()
    module, batches = fitted(situation, rule)

    def loss(batch):
        value = module.step(module, batch)
        return value["loss"] if isinstance(value, dict) else value

    same(rule.state["importance"], by_hand(module, batches, loss, 2))


def weighted(module, batch):
    losses = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
    return (losses * torch.tensor([1.0, 3.0, 9.0])[batch[1]]).mean()


def without(label):
    def step(module, batch):
        return F.cross_entropy(module(batch[0]), batch[1], ignore_index=label, reduction="sum") / len(batch[1])

    return step


@pytest.mark.parametrize(
    ("step", "last"),
    ((weighted, 2), (without(2), 2), (without(-100), -100)),
    ids=("weights of classes", "a class that is left out", "samples that are left out"),
)
def test_a_loss_that_is_the_cross_entropy_of_the_first_batch_alone_is_measured_as_it_is(step, last):
    labels = torch.tensor([0, 1, last]).repeat_interleave(8)  # Sorted: the first batches have the first class only.
    samples, rule = pairs(normal(24, 4), labels), EWC()
    module = Module(mlp(4, 3), step)
    trainer(callbacks=[Metaplasticity(rule)], max_epochs=1).fit(module, DataLoader(samples, batch_size=4))
    batches = list(DataLoader(samples, batch_size=1))
    same(rule.state["importance"], by_hand(module, batches, lambda batch: step(module, batch), 2))


@pytest.mark.parametrize("situation", ("segmentation", "labels of tokens, a dict", "two inputs", "several labels"))
def test_the_sensitivity_is_of_what_the_network_gives_in_training(situation):
    rule = MAS()
    module, batches = fitted(situation, rule)

    def norm(batch):
        given = module(batch["input_ids"], batch["attention_mask"]) if isinstance(batch, dict) else module(*batch[:-1])
        return getattr(given, "logits", given).square().sum()

    same(rule.state["importance"], by_hand(module, batches, norm, 1))


def test_the_last_part_gives_the_output_where_the_module_is_not_called_itself():
    rule = MAS()
    module, batches = fitted("a step that does not call forward", rule)
    norm = lambda batch: module.net[2](torch.relu(module.net[0](batch[0]))).square().sum()  # noqa: E731
    same(rule.state["importance"], by_hand(module, batches, norm, 1))


def test_directions_are_those_of_the_inputs_that_training_gives():
    rule = OWM(inputs="samples", regularization=1.0)
    _, batches = fitted("two inputs", rule)
    for name, position in (("net.one", 0), ("net.two", 1)):
        seen = torch.cat([batch[position] for batch in batches]).double()
        seen = torch.cat([torch.ones(len(seen), 1), seen], 1)
        expected = torch.linalg.inv(torch.eye(seen.shape[1]).double() + seen.T @ seen)
        torch.testing.assert_close(rule.state["projector"][name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", (SI(), BGD(), UPGD()), ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize(
    "situation", ("labels of tokens, a dict", "two inputs", "a dict that is returned, with names of files")
)
def test_rules_that_read_no_batch_take_any(situation, rule):
    module, _ = fitted(situation, rule.clone())
    assert all(p.isfinite().all() for p in module.parameters())


def test_the_second_of_three_parts_is_not_taken_for_labels():
    with pytest.raises(
        TypeError, match=r"NACA needs to know inputs and labels, and a batch of 3 parts .* as the argument unpack"
    ):
        fitted("two inputs", NACA(classes=2))


CLASSES = [(x, y) for x, y in zip(normal(24, 4), integers(3, 24), strict=True)]


def cross_entropy_hosts():
    """The same classifier as hosts have it, with bits that must agree."""
    torch.manual_seed(3)
    start = mlp(4, 3)

    def fresh():
        network = mlp(4, 3)
        network.load_state_dict(start.state_dict())
        return network

    def loop(rule, **options):
        network = fresh()
        session, optimizer = Session(network, rule, **options), torch.optim.SGD(network.parameters(), lr=0.01)
        loader = DataLoader(CLASSES, batch_size=4)
        with session.experience(loader):
            for x, y in loader:
                with session.step(x, y, optimizer):
                    F.cross_entropy(network(x), y).backward()

    def wrapper(rule):
        optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.01)  # noqa: E731
        trainer(max_epochs=1).fit(
            MetaplasticModule(fresh(), rule=rule, optimizer=optimizer), DataLoader(CLASSES, batch_size=4)
        )

    def callback(rule, step=None):
        step = step or (lambda m, b: F.cross_entropy(m(b[0]), b[1]))
        module = Module(fresh(), step)
        trainer(max_epochs=1, callbacks=[Metaplasticity(rule, network="net")]).fit(
            module, DataLoader(CLASSES, batch_size=4)
        )

    return {
        "loop": loop,
        "loop that tells its loss": lambda rule: loop(rule, loss=nn.CrossEntropyLoss()),
        "wrapper": wrapper,
        "callback": callback,
        "another way to write it": lambda rule: callback(rule, lambda m, b: F.nll_loss(m(b[0]).log_softmax(1), b[1])),
    }


@pytest.mark.parametrize("labels", ("true", "sample", "exact"))
@pytest.mark.parametrize("host", cross_entropy_hosts())
def test_where_the_task_is_the_cross_entropy_of_classes_the_closed_form_gives_the_same_bits(host, labels):
    task, closed = EWC(labels=labels), EWC(labels=labels, loss="cross_entropy")
    cross_entropy_hosts()[host](task)
    cross_entropy_hosts()["loop"](closed)
    for name, tensor in closed.state["importance"].items():
        if host == "another way to write it":  # Whose gradients move the weights a little elsewhere.
            torch.testing.assert_close(task.state["importance"][name], tensor)
        else:
            assert torch.equal(task.state["importance"][name], tensor)


def test_squared_error_to_the_label_has_its_closed_form():
    task, closed = EWC(), EWC(loss="mse")
    for rule in (task, closed):
        torch.manual_seed(0)
        trainer(max_epochs=1).fit(
            MetaplasticModule(mlp(4, 3), rule=rule, loss="mse"), DataLoader(CLASSES, batch_size=4)
        )
    assert all(torch.equal(task.state["importance"][n], t) for n, t in closed.state["importance"].items())


@pytest.mark.parametrize("rule", (EWC(), MAS(), OWM()), ids=lambda rule: type(rule).__name__)
def test_a_loop_that_tells_its_loss_is_measured_by_it(rule):
    torch.manual_seed(0)
    network = mlp(4, 1)
    session, optimizer = Session(network, rule, loss=nn.MSELoss()), torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = normal(12, 4), normal(12, 1)
    with session.experience([(x, y)]), session.step(x, y, optimizer):
        F.mse_loss(network(x), y).backward()
    if isinstance(rule, EWC):
        batches = list(zip(x.split(1), y.split(1), strict=True))
        same(rule.state["importance"], by_hand(network, batches, lambda b: F.mse_loss(network(b[0]), b[1]), 2))
    assert len(rule.state)


class Manual(Module):
    def __init__(self, net, *, through):
        super().__init__(net, None)
        self.automatic_optimization = False
        self.through = through

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.manual_backward(loss) if self.through == "manual_backward" else loss.backward()
        optimizer.step()
        self.log("loss", loss)


@pytest.mark.parametrize("through", ("manual_backward", "backward"))
def test_under_manual_optimization_the_loss_is_what_is_sent_back(through):
    torch.manual_seed(0)
    samples, rule = pairs(normal(12, 4), normal(12, 1)), EWC()
    module = Manual(mlp(4, 1), through=through)
    backward = torch.Tensor.backward
    trainer(callbacks=[Metaplasticity(rule)], max_epochs=1).fit(module, DataLoader(samples, batch_size=4))
    assert torch.Tensor.backward is backward
    batches = list(DataLoader(samples, batch_size=1))
    same(rule.state["importance"], by_hand(module, batches, lambda b: F.mse_loss(module(b[0]), b[1]), 2))


class Curious(Module):
    """Logs, counts, keeps a running mean, draws, and remembers, in every step."""

    def __init__(self, net):
        super().__init__(net, None)
        from torchmetrics import MeanMetric

        self.mean = MeanMetric()
        self.calls, self.losses = 0, []
        self.register_buffer("running", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.calls += 1
        self.losses.append(float(loss.detach()))
        self.running += loss.detach()
        self.mean(loss.detach())
        torch.rand(3)
        self.log("loss", self.mean, on_epoch=True)
        return loss


@pytest.mark.parametrize("rule", (EWC(), MAS(), OWM()), ids=lambda rule: type(rule).__name__)
def test_measuring_leaves_no_trace(rule):
    samples, found = pairs(normal(12, 4), normal(12, 1)), []
    for callbacks in ([], [Metaplasticity(rule)]):
        torch.manual_seed(0)
        module = Curious(mlp(4, 1))
        if callbacks:
            callbacks.append(CostLedger())
        run = trainer(callbacks=callbacks, max_epochs=2)
        run.fit(module, DataLoader(samples, batch_size=4, shuffle=True))
        found.append((module, run, torch.get_rng_state()))
    (plain_module, plain_run, plain_state), (module, run, state) = found
    assert torch.equal(plain_state, state)
    assert module.calls == plain_module.calls == 6
    assert module.losses == plain_module.losses
    assert plain_run.callback_metrics.keys() == run.callback_metrics.keys()
    assert all(torch.equal(a, run.callback_metrics[name]) for name, a in plain_run.callback_metrics.items())
    assert module.training
    assert "log" not in vars(module)
    if not isinstance(rule, OWM):
        assert all(
            torch.equal(a, b)
            for a, b in zip(module.state_dict().values(), plain_module.state_dict().values(), strict=True)
        )
    ledger = run.callbacks[1]
    assert ledger.experiences[0].forward_macs == 2 * 12 * (4 * 6 + 6)


def none_for_few(module, batch):
    return None if len(batch[0]) < 4 else F.mse_loss(module(batch[0]), batch[1])


def around_the_network(module, batch):
    return F.linear(batch[0], module.net[0].weight).square().sum()


@pytest.mark.parametrize(
    ("rule", "situation", "step", "message"),
    (
        (EWC(labels="exact"), "regression", None, "labels='exact' takes labels from the network's own prediction"),
        (EWC(loss="cross_entropy"), "two classes, one output", None, "the network has one output, whose softmax is 1"),
        (EWC(), "regression", none_for_few, "training_step gives no loss"),
        (MAS(), "regression", around_the_network, "runs without calling Module, the network to protect"),
    ),
)
def test_what_cannot_be_measured_is_refused_before_the_first_step(rule, situation, step, message):
    made, rule = SITUATIONS[situation](), rule.clone()
    module = Module(made.net, step or made.step)
    start = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=message) as caught:
        trainer(callbacks=[Metaplasticity(rule)], max_epochs=1).fit(module, DataLoader(made.samples, batch_size=4))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), start, strict=True))
    assert len(rule.state) == 0


@pytest.mark.parametrize("target", (0, 1))
def test_a_plain_loop_with_one_output_is_told_to_say_its_loss(target):
    network = mlp(4, 1)
    session = Session(network, EWC())
    session.begin_experience()
    with pytest.raises(ValueError, match=r"one output, .* Session\(loss=...\)"):
        session.before_forward(normal(6, 4), torch.full((6,), target))


@pytest.mark.parametrize("rule", (EWC(), MAS()), ids=lambda rule: type(rule).__name__)
def test_an_importance_that_is_zero_everywhere_is_an_error(rule):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
    session, optimizer = Session(network, rule), torch.optim.SGD(network.parameters(), lr=0.01)
    x, y = normal(6, 4), integers(2, 6)
    session.begin_experience()
    with session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    with torch.no_grad():  # No hidden unit ever fires.
        network[0].weight.zero_()
        network[0].bias.fill_(-1.0)
    with pytest.raises(ValueError, match="is 0 for every parameter, so that nothing would be protected"):
        session.end_experience([(x, y)])
    assert "importance" not in rule.state
    # With something to protect, a later experience that adds nothing does not end the stream.
    torch.nn.init.normal_(network[0].weight)
    session.end_experience([(x, y)])
    remembered = {name: value.clone() for name, value in rule.state["importance"].items()}
    with torch.no_grad():
        network[0].weight.zero_()
    session.begin_experience()
    with session.step(x, y, optimizer):
        F.cross_entropy(network(x), y).backward()
    with pytest.warns(UserWarning, match="adds nothing to what .* protects"):
        session.end_experience([(x, y)])
    assert all(torch.equal(value, rule.state["importance"][name]) for name, value in remembered.items())


def test_batches_are_taken_apart_once_a_step():
    calls = []

    def unpack(batch):
        calls.append(1)
        return batch["a"], batch["b"]

    samples = [{"a": x, "b": y} for x, y in CLASSES]
    module = MetaplasticModule(mlp(4, 3), rule=SI(), unpack=unpack)
    trainer(max_epochs=1).fit(module, DataLoader(samples, batch_size=4))
    assert len(calls) == 6


def test_a_language_model_and_a_classifier_of_hugging_face_are_measured_as_they_are():
    transformers = pytest.importorskip("transformers")
    small = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    bert = transformers.BertConfig(**small, max_position_embeddings=8, num_labels=3)
    gpt = transformers.GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    ids, mask = integers(29, 8, 6) + 1, torch.ones(8, 6, dtype=torch.long)
    mask[::2, 4:] = 0
    words = [{"input_ids": i, "labels": i} for i in ids]
    for model, samples in (
        (transformers.BertForSequenceClassification(bert), texts(ids, mask, integers(3, 8))),
        (transformers.GPT2LMHeadModel(gpt), words),
    ):
        for rule, power in ((EWC(), 2), (MAS(), 1)):
            module = Module(model, lambda m, b: m(**b).loss)
            trainer(callbacks=[Metaplasticity(rule)], max_epochs=1).fit(module, DataLoader(samples, batch_size=4))

            def scalar(batch, module=module, power=power):
                output = module(**batch)
                return output.loss if power == 2 else output.logits.square().sum()

            expected = by_hand(module, list(DataLoader(samples, batch_size=1)), scalar, power)
            module.train()
            for name, tensor in rule.state["importance"].items():
                torch.testing.assert_close(
                    tensor, expected[name], rtol=2e-3, atol=max(1e-5 * float(expected[name].max()), 1e-20)
                )

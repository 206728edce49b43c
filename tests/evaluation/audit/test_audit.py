"""The audit against models that leak in every way we know, and against those that must not be blamed."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta import Session, audit, scenario
from lit_meta.evaluation.audit import stratified_subset
from lit_meta.networks import build_network
from lit_meta.rules import NACA


def stream(samples: int = 240, classes: int = 4, features: int = 6) -> list[tuple[Tensor, Tensor]]:
    """Overlapping clusters, one class a test experience."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(classes, features, generator=generator)
    each = samples // classes
    return [
        (centres[c] + torch.randn(each, features, generator=generator), torch.full((each,), c)) for c in range(classes)
    ]


def fitted(*layers: nn.Module) -> nn.Sequential:
    """A classifier of `stream` that is worth auditing: trained, so that its predictions carry information."""
    data = stream()
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        network = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network


class Stubborn(nn.Sequential):
    """Forgets to leave training mode."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


class Centred(nn.Module):
    """Subtracts the mean of the batch in its forward pass, where no module shows it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(0))


class Trailing(nn.Module):
    """Adds what is left of the batch before."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.trace
        self.trace = x.mean(0).detach()
        return x


class Counting(nn.Module):
    """Keeps its memory in a buffer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum(0)
        return x + self.seen.sin() * 3


class Positional(nn.Module):
    """Treats the first half of a batch otherwise than the second."""

    def forward(self, x: Tensor) -> Tensor:
        sign = torch.where(torch.arange(len(x)) < len(x) // 2, 1.0, -1.0)
        return x * sign[:, None]


def names(conditions: list) -> set[str]:
    return {condition.name for condition in conditions}


def test_a_model_without_a_leak_passes_in_every_condition():
    network = fitted(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
    report = audit(network, stream(), batch_size=32)
    assert report.passed
    assert report.accuracy > 0.7
    assert not report.causes
    judged = [c for c in report.conditions if c.judged]
    assert names(judged) == {
        "shuffled",
        "repeated",
        "permuted",
        "reordered",
        "mixed",
        "class-pure",
        "single",
        "outliers",
    }
    assert all(c.accuracy == report.accuracy and c.disagreements == 0 and c.samples == 240 for c in judged)
    (training,) = [c for c in report.conditions if not c.judged]
    assert training.name == "training mode"
    assert training.disagreements > 0


def test_batch_normalisation_left_in_training_mode_is_named():
    network = fitted(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    report = audit(Stubborn(*network), stream(), batch_size=32)
    assert not report.passed
    assert {"class-pure", "mixed", "single"} <= names(report.failures)
    assert "repeated" not in names(report.failures)
    assert ("1", "batch statistics") in {(c.module, c.kind) for c in report.causes}
    (single,) = [c for c in report.conditions if c.name == "single"]
    assert single.accuracy is None
    assert "Expected more than 1 value per channel" in single.error


def test_batch_normalisation_without_running_statistics_is_named():
    network = fitted(nn.Linear(6, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.ReLU(), nn.Linear(16, 4))
    report = audit(network, stream(), batch_size=32)
    assert "class-pure" in names(report.failures)
    assert [(c.module, c.kind) for c in report.causes if c.kind != "batch size"] == [("1", "batch statistics")]


def test_dropout_left_on_is_named_and_shows_when_the_same_batches_come_again():
    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
    report = audit(Stubborn(*network), stream(), batch_size=32)
    assert "repeated" in names(report.failures)
    assert ("2", "dropout") in {(c.module, c.kind) for c in report.causes}


def test_a_model_is_tested_in_the_mode_it_is_handed_over_in_when_asked_to():
    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)).train()
    assert audit(network, stream()).passed
    assert not audit(network, stream(), mode="as_given").passed
    assert network.training


def test_functional_randomness_is_distinguished_from_carried_state():
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=True)

    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    report = audit(nn.Sequential(network[0], Noisy(), *network[1:]), stream(), batch_size=32)
    assert "repeated" in names(report.failures)
    assert [(c.module, c.kind) for c in report.causes] == [("1", "chance")]


@pytest.mark.parametrize(("memory", "tensor"), ((Trailing(), "1.trace"), (Counting(16), "1.seen")))
def test_state_carried_between_batches_is_named_with_the_tensor_that_holds_it(memory, tensor):
    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    report = audit(nn.Sequential(network[0], memory, *network[1:]), stream(), batch_size=32)
    assert {"repeated", "reordered"} <= names(report.failures)
    (cause,) = report.causes
    assert (cause.module, cause.kind) == ("1", "carried state")
    assert tensor in cause.message


def test_the_mean_of_the_batch_in_the_code_of_a_module_is_traced_to_that_module():
    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    report = audit(nn.Sequential(nn.Identity(), Centred(network)), stream(), batch_size=32)
    assert {"class-pure", "single"} <= names(report.failures)
    assert not {"repeated", "reordered", "permuted"} & names(report.failures)
    assert [(c.module, c.kind) for c in report.causes] == [("1", "other samples")]


def test_dependence_on_the_position_in_the_batch_shows_when_samples_are_permuted():
    network = fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    report = audit(nn.Sequential(Positional(), *network), stream(), batch_size=32)
    assert "permuted" in names(report.failures)
    assert "repeated" not in names(report.failures)


def digits_network(gate: str) -> nn.Module:
    options = {"gate_active_units": 40} if gate == "top_k" else {}
    network = build_network("mlp", inputs=64, hidden=[200], classes=10, gate=gate, seed=0, **options)
    session = Session(network, NACA(reduction="sum"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.002)
    generator = torch.Generator().manual_seed(0)
    for experience in scenario("split-digits", seed=0).train_stream:
        x, y = experience.tensor_view[0].tensors()
        with session.experience():
            for batch in torch.randperm(len(y), generator=generator).split(32):
                with session.step(x[batch], y[batch], optimizer):
                    (0.5 * (network(x[batch]) - F.one_hot(y[batch], 10)).square().sum()).backward()
    return network


def test_the_published_gate_of_naca_is_flagged():
    report = audit(digits_network("batch"), scenario("split-digits"), batch_size=128)
    assert not report.passed
    (pure,) = [c for c in report.failures if c.name == "class-pure"]
    assert pure.difference > 0.2
    assert [(c.module, c.kind) for c in report.causes] == [("gate", "batch-dependent gate")]


@pytest.mark.parametrize("gate", ("none", "sample", "top_k"))
def test_every_other_gate_of_naca_passes(gate):
    report = audit(digits_network(gate), scenario("split-digits"), batch_size=128)
    assert report.passed
    assert not report.causes


def spiking(input_range: str) -> nn.Module:
    network = build_network(
        "lif-mlp", inputs=64, hidden=[60], classes=10, steps=10, input_range=input_range, learning="bptt", seed=0
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    data = [e.tensor_view[0].tensors() for e in scenario("split-digits", seed=0).train_stream]
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            for batch in torch.randperm(len(y)).split(64):
                optimizer.zero_grad()
                (network(x[batch]) - F.one_hot(y[batch], 10)).square().sum(1).mean().backward()
                optimizer.step()
    return network


def test_a_spiking_network_with_fixed_encoding_passes_and_one_scaled_by_the_batch_is_flagged():
    fixed = audit(spiking("fixed"), scenario("split-digits"), singles=200)
    assert fixed.passed
    assert fixed.accuracy > 0.3
    scaled = audit(spiking("batch"), scenario("split-digits"), singles=200)
    # Every image of the digits spans the whole range, so only companions from elsewhere bring the leak to light.
    assert names(scaled.failures) == {"outliers"}
    assert [c.kind for c in scaled.causes] == ["batch-dependent encoding"]


def test_a_lightning_module_and_a_function_of_ones_own_are_audited_alike():
    class Module(L.LightningModule):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.body(x)}

    module = Module(fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)))
    with pytest.raises(ValueError, match="the argument forward"):
        audit(module, stream())
    assert audit(module, stream(), forward=lambda x: module(x)["logits"]).passed


def test_the_model_and_the_random_state_are_left_as_they_were():
    network = Stubborn(*fitted(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 4)))
    network[2].training = False
    before = {name: t.clone() for name, t in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    audit(network, stream())
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_predictions_that_only_rounding_decides_are_counted_but_not_judged():
    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1.0 + torch.zeros(len(x), 4).index_fill(1, torch.tensor([len(x) % 4]), 1e-7)

    data = [(torch.randn(60, 6), torch.zeros(60, dtype=torch.long))]
    report = audit(Tied(), data, batch_size=16)
    (single,) = [c for c in report.conditions if c.name == "single"]
    assert single.disagreements == single.ties > 0
    # The accuracy itself is judged all the same.
    assert single.fails(report.threshold) == (abs(single.difference) > report.threshold)


def test_a_model_that_rejects_outliers_is_not_blamed_for_it():
    class Careful(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if x.abs().max() > 7:
                raise ValueError("inputs out of range")
            return super().forward(x)

    report = audit(Careful(*fitted(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))), stream())
    assert report.passed
    (outliers,) = [c for c in report.conditions if c.name == "outliers"]
    assert outliers.error == "inputs out of range"
    assert not outliers.judged


def test_bad_arguments_are_refused():
    network = nn.Linear(6, 4)
    for arguments, error, message in (
        ({"threshold": 1.0}, ValueError, "fraction"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1"),
        ({"samples": 0}, ValueError, "samples must be a whole number of at least 1"),
        ({"singles": 0}, ValueError, "singles must be a whole number of at least 1"),
        ({"mode": "train"}, ValueError, "mode must be one of"),
    ):
        with pytest.raises(error, match=message):
            audit(network, stream(), **arguments)
    with pytest.raises(TypeError, match="a scenario is a name"):
        audit(network, 3)
    with pytest.raises(ValueError, match="needs samples"):
        audit(network, [])


def test_a_stratified_subset_is_as_even_as_the_classes_allow():
    targets = torch.cat([torch.full((size,), c) for c, size in enumerate((50, 3, 20))])
    chosen = stratified_subset(targets, 15, torch.Generator().manual_seed(0))
    assert torch.bincount(targets[chosen]).tolist() == [6, 3, 6]
    assert len(chosen.unique()) == 15
    assert torch.equal(stratified_subset(targets, 100, torch.Generator()), torch.arange(73))


def test_an_object_that_is_not_a_model_is_refused():
    with pytest.raises(TypeError, match=r"a model is a torch\.nn\.Module, got NoneType"):
        audit(None, "split-digits")

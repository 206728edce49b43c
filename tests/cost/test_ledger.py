"""The ledger through a Trainer: every count to the last operation, and nothing else changed."""

from __future__ import annotations

import copy
import sys

import lightning as L
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from lit_meta import CostLedger, MetaplasticModule, fit_stream, scenario
from lit_meta.cost.arithmetic import ArithmeticCounter
from lit_meta.cost.memory import SavedTensors
from lit_meta.cost.operations import OperationCounter
from lit_meta.cost.totals import Cost
from lit_meta.networks import build_network
from lit_meta.rules import EWC, NACA, RULES, Rule, build_rule
from lit_meta.utils.paths import configs_folder

SAMPLES, BATCH, CLASSES = 50, 16, 4
STEPS = 4  # 16 + 16 + 16 + 2


def data(*shape: int) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(SAMPLES, *shape, generator=generator) - 0.4).clamp(min=0)  # With zeros among the values.
    return DataLoader(TensorDataset(x, torch.randint(0, CLASSES, (SAMPLES,), generator=generator)), batch_size=BATCH)


def fit(module: L.LightningModule, loader: DataLoader, *callbacks: L.Callback, **options: object) -> None:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": 1,
    }
    torch.manual_seed(0)
    L.Trainer(callbacks=list(callbacks), **{**quiet, **options}).fit(module, loader)


def counted(network: nn.Module, loader: DataLoader, rule: Rule | None = None, **options: object) -> Cost:
    ledger = CostLedger()
    fit(MetaplasticModule(network, rule=rule, loss="mse"), loader, ledger, **options)
    (cost,) = ledger.experiences
    return cost


def test_a_multilayer_perceptron_against_its_closed_form():
    network = build_network("mlp", inputs=8, hidden=[12, 9], classes=CLASSES, bias=True, seed=0)
    cost = counted(network, data(8), max_epochs=3)
    layers = [8 * 12, 12 * 9, 9 * CLASSES]
    assert (cost.steps, cost.samples) == (3 * STEPS, 3 * SAMPLES)
    assert cost.forward_macs == cost.analog_macs == cost.samples * sum(layers)
    # A weight gradient in every layer; an input gradient in all but the first.
    assert cost.backward_macs == cost.samples * (sum(layers) + sum(layers[1:]))
    assert cost.weight_updates == cost.steps * (sum(layers) + 12 + 9 + CLASSES)
    assert cost.published_operations == 3 * 2 * sum(layers)
    assert (cost.local_macs, cost.synaptic_operations, cost.lif_updates, cost.rule_operations) == (0, 0, 0, 0)
    assert cost.energy_joules == pytest.approx(4.6e-12 * (cost.forward_macs + cost.backward_macs + cost.weight_updates))
    assert cost.state_bytes == cost.optimizer_bytes == 0
    assert cost.seconds > 0
    assert cost.peak_memory_bytes > 10 * 2**20 or sys.platform == "win32"


class Convolutions(nn.Module):
    """Strided, dilated and transposed convolutions, and a frozen layer between trained ones."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 8, 3, stride=2, padding=1, groups=groups)
        self.two = nn.Conv2d(8, 6, 3, dilation=2, padding=2, groups=groups).requires_grad_(False)
        self.three = nn.ConvTranspose2d(6, 4, 3, stride=2)
        self.head = nn.Linear(4 * 9 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.three(self.two(self.one(x).tanh()).tanh()).tanh().flatten(1))


def by_torch(network: nn.Module, x: Tensor) -> tuple[int, int]:
    """MACs of a forward and of a backward pass by torch's own counter."""
    with FlopCounterMode(display=False) as forward:
        output = network(x)
    with FlopCounterMode(display=False) as backward:
        output.square().sum().backward()
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


@pytest.mark.parametrize(
    ("network", "shape"),
    (
        (Convolutions(groups=1), (2, 8, 8)),
        (build_network("convnet", input_shape=(1, 12, 12), channels=(3, 5), hidden=(7,), classes=CLASSES), (1, 12, 12)),
        (build_network("mlp", inputs=8, hidden=[5, 6, 7], classes=CLASSES), (8,)),
    ),
)
def test_forward_and_backward_are_those_of_torchs_counter(network, shape):
    expected_forward, expected_backward = by_torch(copy.deepcopy(network), torch.rand(SAMPLES, *shape))
    cost = counted(network, data(*shape))
    assert (cost.forward_macs, cost.backward_macs) == (expected_forward, expected_backward)


def test_grouped_convolutions_against_their_closed_form():
    # Torch's counter gives the weight gradient of a grouped convolution once for every group, so it is no reference here.
    network = Convolutions(groups=2)
    cost = counted(network, data(2, 8, 8))
    one, two = SAMPLES * (4 * 4) * 8 * 1 * 9, SAMPLES * (4 * 4) * 6 * 4 * 9
    three, head = SAMPLES * (4 * 4) * 6 * 4 * 9, SAMPLES * 4 * 9 * 9 * CLASSES
    assert cost.forward_macs == one + two + three + head == by_torch(copy.deepcopy(network), torch.rand(50, 2, 8, 8))[0]
    # Weight gradients of all but the frozen layer, input gradients of all but the first.
    assert cost.backward_macs == one + two + 2 * three + 2 * head


def test_a_part_that_the_loss_does_not_reach_costs_no_backward_pass():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(8, CLASSES), nn.Linear(8, 30)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.used(x)

    cost = counted(Forked(), data(8))
    assert cost.forward_macs == SAMPLES * 8 * (CLASSES + 30)
    assert cost.backward_macs == SAMPLES * 8 * CLASSES
    assert cost.weight_updates == STEPS * (8 * CLASSES + CLASSES)


def test_naca_computes_no_input_gradient_and_learns_where_the_gate_is_open():
    network = build_network("mlp", inputs=8, hidden=[12, 9], classes=CLASSES, gate="top_k", gate_active_units=3, seed=0)
    loader = data(8)
    cost = counted(network, loader, NACA())
    layers = [8 * 12, 12 * 9, 9 * CLASSES]
    assert cost.forward_macs == SAMPLES * sum(layers)
    assert cost.local_macs == SAMPLES * sum(layers[:2])
    assert cost.backward_macs == SAMPLES * layers[2]
    # Nonzero inputs meet the 3 open units; behind the first gate 3 units are not zero.
    nonzero = int((loader.dataset.tensors[0] != 0).sum())
    assert cost.local_operations == nonzero * 3 + SAMPLES * 3 * 3
    assert cost.local_accumulates == 0
    assert cost.published_operations == sum(layers)
    assert cost.rule_operations > 0
    assert cost.state_bytes > 0


class Recorder(L.Callback):
    """The spikes that a network itself has recorded."""

    def __init__(self, network: nn.Module) -> None:
        network.record_spikes = True
        self.network = network
        self.spikes: dict[str, int] = {}

    def on_train_batch_end(self, *arguments: object) -> None:
        for name, counts in self.network.spike_counts.items():
            self.spikes[name] = self.spikes.get(name, 0) + int(counts.sum())


@pytest.mark.parametrize("learning", ("last_step", "bptt"))
def test_a_spiking_network_against_the_spikes_it_recorded(learning):
    network = build_network(
        "lif-mlp", inputs=8, hidden=[30], classes=CLASSES, steps=6, learning=learning, weight_gain=3.0, seed=0
    )
    recorder, ledger = Recorder(network), CostLedger()
    fit(MetaplasticModule(network, loss="mse"), data(8), recorder, ledger)
    (cost,) = ledger.experiences
    layers = [8 * 30, 30 * CLASSES]
    assert recorder.spikes["layers.1"] > 0
    assert cost.synaptic_operations == recorder.spikes["layers.0"] * 30 + recorder.spikes["layers.1"] * CLASSES
    assert cost.lif_updates == SAMPLES * 6 * (30 + CLASSES)
    assert cost.forward_macs == 6 * SAMPLES * sum(layers)
    assert cost.analog_macs == 0
    learned = 1 if learning == "last_step" else 6
    assert cost.backward_macs == learned * SAMPLES * (sum(layers) + layers[1])
    joules = (
        4.6e-12 * (cost.lif_updates + cost.backward_macs + cost.weight_updates) + 0.9e-12 * cost.synaptic_operations
    )
    assert cost.energy_joules == pytest.approx(joules)


@pytest.mark.parametrize("gate", ({"gate": "top_k", "gate_active_units": 7}, {"gate": "sample"}))
def test_gated_spikes_are_counted_as_the_network_records_them(gate):
    network = build_network(
        "lif-mlp", inputs=8, hidden=[30, 20], classes=CLASSES, steps=6, weight_gain=3.0, seed=0, **gate
    )
    recorder, ledger = Recorder(network), CostLedger()
    fit(MetaplasticModule(network, loss="mse"), data(8), recorder, ledger)
    fan_out = {"layers.0": 30, "layers.1": 20, "layers.2": CLASSES}
    expected = sum(count * fan_out[name] for name, count in recorder.spikes.items())
    assert ledger.total.synaptic_operations == expected > 0


def test_a_spiking_network_that_learns_locally_pays_accumulates_for_spikes():
    network = build_network("lif-mlp", inputs=8, hidden=[30], classes=CLASSES, steps=6, seed=0)
    cost = counted(network, data(8), NACA())
    assert cost.local_macs == SAMPLES * 8 * 30  # Of the last step alone.
    assert 0 < cost.local_accumulates == cost.local_operations < cost.local_macs
    assert cost.local_operations % 30 == 0


@pytest.mark.parametrize("encoding", ("bernoulli", "analog"))
@pytest.mark.parametrize("gate", ({"gate": "top_k", "gate_active_units": 7}, {"gate": "sample"}, {"gate": "batch"}))
def test_steps_of_a_membrane_that_keeps_its_graph_share_the_gate_of_their_sample(gate, encoding):
    options = {"inputs": 8, "hidden": [30, 20], "classes": CLASSES, "steps": 6, "seed": 0, "encoding": encoding, **gate}
    network = build_network("lif-mlp", detach="none", **options)
    cost = counted(network, data(8), NACA())
    # All steps of a layer take part in its local gradient, so each step's spikes meet the open units.
    assert cost.local_macs == SAMPLES * ((8 * 30 if encoding == "analog" else 6 * 8 * 30) + 6 * 30 * 20)
    assert 0 < cost.local_operations < cost.local_macs
    if gate["gate"] == "top_k":
        assert cost.local_operations % 7 == 0


def test_analog_input_is_multiplied_once_and_its_neurons_step_all_the_same():
    network = build_network(
        "lif-mlp", inputs=8, hidden=[30, 20], classes=CLASSES, steps=6, encoding="analog", weight_gain=3.0, seed=0
    )
    recorder, ledger = Recorder(network), CostLedger()
    fit(MetaplasticModule(network, loss="mse"), data(8), recorder, ledger)
    (cost,) = ledger.experiences
    assert cost.analog_macs == SAMPLES * 8 * 30
    assert cost.forward_macs == SAMPLES * (8 * 30 + 6 * (30 * 20 + 20 * CLASSES))
    assert cost.lif_updates == SAMPLES * 6 * (30 + 20 + CLASSES)
    assert cost.synaptic_operations == recorder.spikes["layers.1"] * 20 + recorder.spikes["layers.2"] * CLASSES


def test_spikes_at_the_border_of_a_convolution_reach_less():
    network = build_network(
        "lif-convnet", input_shape=(1, 8, 8), channels=(3,), kernel=5, hidden=(), classes=CLASSES, steps=3, seed=0
    )
    counter = OperationCounter(network, local=False)
    seen: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    x = torch.rand(5, 1, 8, 8)
    counter.start()
    network(x)
    counter.stop()
    first = sum(F.conv2d(spikes, torch.ones(3, 1, 5, 5), padding=2).sum() for spikes in seen)
    counter.close()
    network.record_spikes = True
    with torch.random.fork_rng():
        network.eval()
        counter = OperationCounter(network, local=False)
        seen.clear()
        counter.start()
        network(x)
        counter.stop()
        first = sum(F.conv2d(spikes, torch.ones(3, 1, 5, 5), padding=2).sum() for spikes in seen)
    recorded = int(network.spike_counts["layers.1"].sum())
    cost = counter.cost()
    assert cost.synaptic_operations == int(first) + recorded * CLASSES
    assert cost.lif_updates == 5 * 3 * (3 * 8 * 8 + CLASSES)


def test_the_work_of_a_rule_is_counted_step_by_step_and_at_consolidation():
    ledger = CostLedger()
    network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
    module = MetaplasticModule(network, rule=EWC(strength=1.0))
    for _ in range(2):
        fit(module, data(8), ledger, max_epochs=5)
    first, second = ledger.experiences
    weights = 8 * 12 + 12 * CLASSES
    assert first.rule_operations > 2 * SAMPLES * weights  # The Fisher information needs gradients.
    # The penalty's gradient is one subtraction and one multiply-add a weight and step, from the second experience on; then
    # the two memories are merged, in fewer than 20 operations a weight.
    more = second.rule_operations - first.rule_operations - 2 * weights * second.steps
    assert 0 < more < 20 * weights
    assert first.forward_macs == 5 * SAMPLES * weights  # Consolidation is the rule's work, not a training step's.
    assert second.published_operations == 5 * 3 * weights
    assert second.state_bytes == 2 * 4 * weights


def test_a_stream_adds_up_what_its_experiences_cost():
    ledger = CostLedger()
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10, seed=0), rule=EWC())
    result = fit_stream(module, scenario("split-digits", experiences=2), accelerator="cpu", callbacks=[ledger])
    first, second = ledger.experiences
    total = ledger.total
    assert total.samples == result.cost["samples"] == first.samples + second.samples
    for name in ("forward_macs", "backward_macs", "rule_operations", "weight_updates", "published_operations"):
        assert result.cost[name] == getattr(total, name) == getattr(first, name) + getattr(second, name)
    assert result.cost["energy_joules"] == pytest.approx(total.energy_joules)
    assert total.saved_bytes == max(first.saved_bytes, second.saved_bytes) > 0
    assert result.cost["steps"] == total.steps
    assert result.cost["seconds"] >= total.seconds


def test_the_penalty_of_ewc_costs_two_operations_a_weight_and_step():
    rule, network = EWC(), build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
    weights = 8 * 12 + 12 * CLASSES
    names = [n for n, _ in network.named_parameters()]
    rule.state["importance"] = {n: torch.ones_like(p) for n, p in network.named_parameters()}
    rule.state["anchor"] = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    from lit_meta.core.rule import Synapses

    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    with ArithmeticCounter() as counter:
        rule.gradient(Synapses(network, tuple(names), list(network.parameters())))
    assert counter.operations == 2 * weights


def test_the_ledger_changes_nothing_and_leaves_nothing_behind():
    def weights(*callbacks: L.Callback) -> list[Tensor]:
        network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
        rules = [NACA(), EWC(strength=10.0, loss="mse")]
        module = MetaplasticModule(network, rule=rules, loss="mse")
        for _ in range(2):
            fit(module, data(8), *callbacks)
        assert not network.layers[0]._forward_hooks
        assert all("gradient" not in vars(rule) and "local_error" not in vars(rule) for rule in rules)
        return list(network.parameters())

    assert all(torch.equal(plain, counted) for plain, counted in zip(weights(), weights(CostLedger()), strict=True))


@pytest.mark.parametrize("name", RULES)
def test_no_rule_learns_otherwise_beside_a_ledger(name):
    def weights(*callbacks: L.Callback) -> list[Tensor]:
        network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, activation="tanh", bias=True, seed=0)
        rule = build_rule(**yaml.safe_load((configs_folder() / "rule" / f"{name}.yaml").read_text()))
        module = MetaplasticModule(network, rule=rule, loss="cross_entropy")
        for _ in range(2):
            fit(module, data(8), *callbacks)
        return list(network.parameters())

    ledger = CostLedger()
    assert all(torch.equal(plain, counted) for plain, counted in zip(weights(), weights(ledger), strict=True))
    assert ledger.total.forward_macs == 2 * SAMPLES * (8 * 12 + 12 * CLASSES)


def test_the_order_of_the_callbacks_does_not_matter():
    from lit_meta import Metaplasticity

    costs = []
    for first in (True, False):
        ledger, plasticity = CostLedger(), Metaplasticity(NACA(), network="network")
        network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
        order = (ledger, plasticity) if first else (plasticity, ledger)
        fit(MetaplasticModule(network, loss="mse"), data(8), *order)
        costs.append({k: v for k, v in ledger.total.to_dict().items() if k not in ("seconds", "peak_memory_bytes")})
    assert costs[0] == costs[1]


def test_accumulated_gradients_take_fewer_updates_and_as_many_macs():
    network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
    once = counted(copy.deepcopy(network), data(8))
    twice = counted(copy.deepcopy(network), data(8), accumulate_grad_batches=2)
    assert (twice.steps, 2 * twice.weight_updates) == (STEPS // 2, once.weight_updates)
    assert (twice.forward_macs, twice.backward_macs) == (once.forward_macs, once.backward_macs)


def test_what_autograd_keeps_against_a_closed_form():
    network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
    with SavedTensors(network) as saved:
        network(torch.rand(5, 8))
    # Each layer's input, and each logistic's output: the hidden activity is both.
    assert saved.bytes == 4 * 5 * (8 + 12 + CLASSES)


def test_a_failed_fit_leaves_no_hooks():
    class Failing(MetaplasticModule):
        def training_step(self, batch: object, batch_idx: int) -> Tensor:
            if batch_idx == 1:
                raise RuntimeError("on purpose")
            return super().training_step(batch, batch_idx)

    network, rule, ledger = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES), NACA(), CostLedger()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(Failing(network, rule=rule, loss="mse"), data(8), ledger)
    assert not network.layers[0]._forward_hooks
    assert "local_error" not in vars(rule)
    assert not ledger.experiences
    with pytest.raises(ValueError, match="no experience has been counted"):
        _ = ledger.total


def test_constants_of_the_energy_are_arguments():
    network = build_network("mlp", inputs=8, hidden=[12], classes=CLASSES, seed=0)
    ledger = CostLedger(picojoules_per_mac=1.0, picojoules_per_accumulate=0.0)
    fit(MetaplasticModule(network, loss="mse"), data(8), ledger)
    cost = ledger.total
    assert cost.energy_joules == pytest.approx(1e-12 * (cost.forward_macs + cost.backward_macs + cost.weight_updates))
    with pytest.raises(ValueError, match="must not be negative"):
        CostLedger(picojoules_per_mac=-1.0)

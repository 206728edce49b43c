"""Options of networks in groups: every way of writing them is the same network, and no way hides a mistake."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lit_meta.experiments import Experiment
from lit_meta.experiments.loading import with_setting, yaml_value
from lit_meta.networks import LIFMLP, MLP, Encoding, GateOptions, InputGate, LIFConvNet, LIFParameters, build_network

SIZES = {"inputs": 7, "hidden": [6], "classes": 4, "seed": 0}
FLAT = {
    "steps": 9,
    "decay": 0.3,
    "threshold": 0.4,
    "surrogate": "rectangular",
    "lens": 0.7,
    "current": "identity",
    "learning": "bptt",
    "steps_at_once": 2,
    "encoding": "bernoulli",
    "input_low": -0.5,
    "input_high": 1.5,
    "encoding_seed": 3,
    "gate": "sample",
    "gate_margin": 0.4,
    "gate_slope": 10.0,
}
GROUPS = {
    "neuron": LIFParameters(9, 0.3, 0.4, "rectangular", 0.7, "identity", "bptt", 2),
    "encoding": Encoding("bernoulli", -0.5, 1.5, encoding_seed=3),
    "gate": GateOptions("sample", margin=0.4, slope=10.0),
}
YAML = """
neuron: {steps: 9, decay: 0.3, threshold: 0.4, surrogate: rectangular, lens: 0.7, current: identity, learning: bptt,
  steps_at_once: 2}
encoding: {name: bernoulli, input_low: -0.5, input_high: 1.5, encoding_seed: 3}
gate: {name: sample, margin: 0.4, slope: 10.0}
"""
MIXED = {
    "neuron": {"decay": 0.3, "threshold": 0.4, "lens": 0.7, "current": "identity"},
    **{name: FLAT[name] for name in ("steps", "surrogate", "learning", "steps_at_once", "encoding_seed", "gate_slope")},
    "encoding": {"input_low": -0.5, "input_high": 1.5},
    "gate": {"name": "sample", "margin": 0.4},
}


def traces(network):
    """Everything that options change: the attributes, the output in both modes and the gradients."""
    x = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) * 1.5 - 0.25
    outputs = [repr(network), network.gate.slope, network.input_low, network.input_high, network.steps_at_once]
    for mode in (True, False):
        torch.manual_seed(1)
        output = network.train(mode)(x)
        outputs += [
            output.tolist(),
            *(g.tolist() for g in torch.autograd.grad(output.sum(), list(network.parameters()))),
        ]
    return outputs


@pytest.mark.parametrize("options", (GROUPS, yaml_value(YAML, "test"), MIXED), ids=("dataclasses", "YAML", "mixed"))
def test_every_form_is_the_same_network(options):
    expected = traces(LIFMLP(**SIZES, **FLAT))
    assert traces(LIFMLP(**SIZES, **options)) == expected
    assert traces(build_network({"name": "lif-mlp", **SIZES, **options})) == expected
    assert traces(LIFMLP(**SIZES)) != expected


def test_a_mapping_changes_the_defaults_of_its_network_and_a_dataclass_replaces_them():
    shape = {"input_shape": (1, 8, 8), "channels": (2,), "kernel": 3, "hidden": (3,), "classes": 2}
    for network in (LIFConvNet(**shape, neuron={"steps": 3}), LIFConvNet(**shape, steps=3)):
        assert (network.steps, network.lens, network.steps_at_once) == (3, 0.5, 4)
        assert isinstance(network.current, torch.nn.Identity)
    assert LIFConvNet(**shape, neuron=LIFParameters(steps=3)).lens == 0.2


def test_gates_take_every_form_too():
    for gate in (
        InputGate("batch", inputs=4, units=[3], threshold=0.7),
        InputGate(kind="batch", inputs=4, units=[3], threshold=0.7),
        InputGate(GateOptions("batch", threshold=0.7), inputs=4, units=[3]),
        MLP(4, [3], 2, gate="batch", gate_threshold=0.7).gate,
        MLP(4, [3], 2, gate={"name": "batch", "threshold": 0.7}).gate,
    ):
        assert (gate.kind, gate.margin, gate.threshold, gate.slope) == ("batch", None, 0.7, 1000.0)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"stesp": 3}, "has no argument 'stesp'; did you mean 'steps'"),
        ({"gate_margn": 3}, "has no argument 'gate_margn'; did you mean 'gate_margin'"),
        ({"neuron": {"deacy": 0.1}}, "neuron has no argument 'deacy'; did you mean 'decay'"),
        ({"gate": {"name": "sample", "gate_margin": 0.1}}, "gate has no argument 'gate_margin'; did you mean 'margin'"),
        ({"neuron": {"decay": "low"}}, "neuron: decay must be a number, got 'low'"),
        ({"encoding": {"encoding_seed": 1.5}}, "encoding: encoding_seed must be a whole number, got 1.5"),
        ({"neuron": "lif"}, "neuron must be .*mapping.*, got 'lif'"),
        ({"neuron": {"steps": 5}, "steps": 6}, "neuron is given steps=5 and beside it 6"),
        ({"neuron": LIFParameters(decay=0.5), "decay": 0.6}, "neuron is given decay=0.5 and beside it 0.6"),
    ),
)
def test_a_mistake_is_flagged_by_the_class_and_by_the_spec(options, message):
    with pytest.raises(TypeError, match=message):
        LIFMLP(**SIZES, **options)
    with pytest.raises(TypeError, match=message):
        build_network({"name": "lif-mlp", **SIZES, **options})


def test_an_argument_given_twice_is_no_option_given_twice():
    with pytest.raises(TypeError, match="multiple values for argument 'kind'"):
        InputGate("sample", kind="batch", inputs=4, units=[3])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    (
        (lambda: LIFParameters(steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: LIFParameters(steps=2.0), TypeError, "steps must be a whole number"),
        (lambda: LIFParameters(current="tanh"), KeyError, "unknown output 'tanh'"),
        (lambda: LIFParameters(surrogate="stpd"), KeyError, "did you mean 'stdp'"),
        (lambda: Encoding("analog", input_high=2.0), ValueError, "act on encoding='bernoulli'"),
        (lambda: Encoding("latency"), KeyError, "unknown encoding 'latency'"),
        (lambda: GateOptions(margin=0.1), ValueError, "gate='none' has no margin"),
        (lambda: GateOptions("top_k"), ValueError, "needs active_units"),
        (lambda: dataclasses.replace(GateOptions("sample"), slope=-1.0), ValueError, "slope must be positive"),
    ),
)
def test_options_check_their_own_values(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_options_cannot_change_under_the_networks_that_share_them():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIFParameters().decay = 0.5


def experiment(**network):
    return {"name": "grouped", "scenario": "split-digits", "network": {"name": "lif-mlp", **SIZES, **network}}


def test_an_override_and_a_setting_change_one_option_and_keep_its_neighbours():
    values = experiment(neuron={"decay": 0.3, "steps": 4}, gate="sample")
    values["overrides"] = {"naive": {"network": {"neuron": {"steps": 5}, "gate": {"name": "top_k", "active_units": 2}}}}
    network = Experiment.from_dict(values).for_learner("naive").network
    assert network["neuron"] == {"decay": 0.3, "steps": 5}
    assert network["gate"] == {"name": "top_k", "active_units": 2}
    values = with_setting(with_setting(values, "network.neuron.steps=6"), "network.gate.margin=0.1")
    assert values["network"]["neuron"] == {"decay": 0.3, "steps": 6}
    assert values["network"]["gate"] == {"name": "sample", "margin": 0.1}
    assert build_network(values["network"]).gate.margin == 0.1


def test_a_dataclass_in_an_experiment_is_a_mapping_in_its_file():
    values = Experiment(**experiment(neuron=LIFParameters(steps=3))).to_dict()
    assert values["network"]["neuron"]["steps"] == 3
    assert build_network(yaml_value(str(values["network"]), "test")).steps == 3


@pytest.mark.parametrize(
    "options",
    (
        {"steps": 5, "gate": "sample", "gate_margin": 0.1},
        {"neuron": {"steps": 5}, "gate": {"name": "sample", "margin": 0.1}},
    ),
)
def test_a_parser_that_fills_in_all_defaults_does_not_contradict_what_is_given(options):
    import jsonargparse

    parser = jsonargparse.ArgumentParser()
    parser.add_subclass_arguments(torch.nn.Module, "network")
    config = parser.parse_object(
        {"network": {"class_path": "lit_meta.networks.LIFMLP", "init_args": {**SIZES, **options}}}
    )
    # Its name since 4.49.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    network = instantiate(config).network
    assert (network.steps, network.gate.kind, network.gate.margin) == (5, "sample", 0.1)

"""One language of specs: three forms, one meaning, and nothing silently ignored."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks import MLP, build_network
from lit_meta.rules import EWC, RULES, build_rule
from lit_meta.utils.specs import Spec, normalized

EWC_PATH = "lit_meta.rules.ewc.EWC"


@pytest.mark.parametrize(
    "spec",
    (
        {"name": "ewc", "strength": 3.0},
        {"class_path": EWC_PATH, "init_args": {"strength": 3.0}},
        EWC(strength=3.0),
    ),
)
def test_every_form_builds_the_same_rule(spec):
    rule = build_rule(spec)
    assert isinstance(rule, EWC)
    assert rule.strength == 3.0


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    (
        (3, TypeError, "rule must be a name"),
        ({"strength": 1}, ValueError, "rule needs a name or a class_path"),
        ({"name": ""}, ValueError, "must be text"),
        ({"name": ["ewc"]}, ValueError, "must be text"),
        ({"name": "ewc", "strenght": 1}, TypeError, "did you mean 'strength'"),
        ({"class_path": EWC_PATH, "strength": 1}, ValueError, "arguments go into init_args"),
        ({"class_path": EWC_PATH, "init_args": [1]}, TypeError, "init_args must be a mapping"),
        ({"class_path": "collections.OrderedDict"}, TypeError, "not a lit_meta.Rule"),
        ({"class_path": "nowhere.Rule"}, ValueError, "there is no rule 'nowhere.Rule'"),
        ({1: "ewc"}, TypeError, "must be a name"),
    ),
)
def test_what_has_no_meaning_is_refused(spec, error, message):
    with pytest.raises(error, match=message):
        build_rule(spec)


def test_what_a_file_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    hostile = {"class_path": "hostile_module.Thing", "init_args": {}}
    for build in (build_rule, build_network, optimizer_factory):
        with pytest.raises(ValueError, match="what a file names is not imported"):
            build(hostile, trusted=False)
    assert "hostile_module" not in sys.modules
    network = build_network({"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 2}})
    assert isinstance(network, torch.nn.Linear)
    with pytest.raises(ValueError, match="not a registered network"):
        build_network({"class_path": "torch.nn.Linear", "init_args": {}}, trusted=False)
    optimizer = optimizer_factory({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}, trusted=False)
    assert isinstance(optimizer(network.parameters()), torch.optim.SGD)


def test_an_optimizer_is_an_optimizer():
    with pytest.raises(TypeError, match=r"is not a torch\.optim\.Optimizer"):
        optimizer_factory({"class_path": "torch.nn.Linear"})
    with pytest.raises(TypeError, match="did you mean 'momentum'"):
        optimizer_factory({"name": "sgd", "lr": 0.1, "momentun": 0.9})
    with pytest.raises(TypeError, match="returned a str"):
        optimizer_factory({"class_path": "os.path.basename"})("path")


names = st.sampled_from(sorted(RULES))
arguments = st.dictionaries(
    st.text(min_size=1).filter(lambda k: k not in ("name", "class_path", "init_args")), st.integers()
)


@given(names, arguments)
def test_the_mapping_form_is_what_it_was_read_from(name, given_arguments):
    spec = {"name": name, **given_arguments}
    assert normalized(spec, "rule") == spec
    assert Spec.parse(normalized(name, "rule"), "rule") == Spec(name=name)


def test_a_network_needs_its_arguments():
    with pytest.raises(TypeError, match="network 'mlp' needs the argument 'inputs'"):
        build_network("mlp", hidden=[3], classes=2)
    assert isinstance(build_network("mlp", inputs=2, hidden=[3], classes=2), MLP)

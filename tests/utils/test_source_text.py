"""What source text says of registered things is what the things themselves say."""

from __future__ import annotations

import inspect

import pytest

from lit_meta.data.registry import SCENARIOS
from lit_meta.data.sources.registry import SOURCES
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.source_text import declaration


@pytest.mark.parametrize("registry", (RULES, NETWORKS, SOURCES, SCENARIOS), ids=lambda registry: registry.kind)
def test_summaries_are_those_of_the_things(registry):
    for name in registry:
        if not registry.is_foreign(name):
            said = declaration(registry.origin(name)).summary
            assert said
            assert said == (inspect.getdoc(registry[name]) or "").split("\n")[0], name


def test_what_rules_need_is_found_through_their_bases():
    for name in RULES:
        values = declaration(RULES.origin(name)).values
        rule = RULES[name]
        for need in ("needs_labels", "needs_boundaries"):
            assert values[need] == getattr(rule, need), (name, need)
    assert any(declaration(RULES.origin(name)).values["needs_labels"] for name in RULES)


@pytest.mark.parametrize("target", ("lit_meta.rules.ewc:Ewc", "lit_meta.rules.ewc:annotations"))
def test_a_name_that_is_not_there_is_refused(target):
    with pytest.raises(ValueError, match="there is no class or function"):
        declaration(target)

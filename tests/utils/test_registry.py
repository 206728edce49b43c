"""Registries: names of this package, of this process and of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from lit_meta.utils import registry as module
from lit_meta.utils.registry import Registry


@pytest.fixture
def shapes(monkeypatch):
    points = [
        EntryPoint("decimal", "decimal:Decimal", "shapes"),
        EntryPoint("fraction", "os:system", "shapes"),
        EntryPoint("twice", "os:getcwd", "shapes"),
        EntryPoint("twice", "os:getpid", "shapes"),
        EntryPoint("broken", "no_such_module:thing", "shapes"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "shapes" else [])
    return Registry("shape", {"fraction": "fractions:Fraction"}, group="shapes")


def test_names_of_other_packages_are_found_and_never_replace_ones_of_this(shapes):
    from decimal import Decimal
    from fractions import Fraction

    assert list(shapes) == ["broken", "decimal", "fraction", "twice"]
    assert shapes["fraction"] is Fraction
    assert shapes["decimal"] is Decimal
    assert not shapes.is_foreign("fraction")
    assert shapes.is_foreign("decimal")
    assert shapes.named("decimal.Decimal") == "decimal"
    assert shapes.named("os.system") is None


def test_an_ambiguous_name_and_one_that_cannot_be_imported_say_where_they_come_from(shapes):
    with pytest.raises(ValueError, match=r"ambiguous, it comes from os:getcwd and os:getpid"):
        shapes["twice"]
    with pytest.raises(ValueError, match=r"'broken' cannot be imported from no_such_module:thing"):
        shapes["broken"]
    with pytest.raises(KeyError, match="did you mean 'fraction'"):
        shapes["fractoin"]


def test_of_many_names_only_the_nearest_are_told():
    names = [
        f"{kind}-{data}"
        for kind in ("blurry", "permuted", "split")
        for data in ("digits", "fsdd", "mnist", "shd", "usps")
    ]
    assert str(module.unknown("scenario", "mnist", names, listed_by="lit-meta scenarios")) == (
        "unknown scenario 'mnist'; did you mean 'split-mnist', 'blurry-mnist' or 'permuted-mnist'? "
        "There are 15; lit-meta scenarios lists them."
    )
    assert str(module.unknown("scenario", "xxxx", names)).count("'") == 2 * (1 + 3)  # Also where none is like it.
    assert str(module.unknown("rule", "xxxx", ["ewc", "si"])) == "unknown rule 'xxxx'. Known: ewc, si."
    assert str(module.unknown("rule", "xxxx", [])) == "unknown rule 'xxxx'. Known: none."


def test_a_name_can_be_added_for_the_life_of_the_process(shapes):
    assert shapes.register("circle", complex) is complex
    assert shapes["circle"] is complex
    assert "circle" in shapes
    shapes.register("circle", complex)
    for taken in ("circle", "fraction", "decimal"):
        with pytest.raises(ValueError, match="already"):
            shapes.register(taken, float)

"""Every rule in every kind of network through every host works with an effect, or is refused before anything changes."""

from __future__ import annotations

import pytest

from lit_meta.rules import RULES
from tests.interop.cells import verdict
from tests.interop.models import MODELS
from tests.interop.record import recorded

COMMITTED = recorded()
# In this order neighbours share the training without a rule.
CELLS = [(name, host, rule) for name, model in MODELS.items() for host in model.hosts for rule in sorted(RULES)]


@pytest.mark.parametrize(("model", "host", "rule"), CELLS)
def test_the_cell_is_as_the_page_says(model, host, rule):
    if MODELS[model].missing:
        pytest.skip(f"needs {MODELS[model].packages}: pip install 'lit-meta[interop]'")
    expected, result = COMMITTED[model][host][rule], verdict(model, rule, host)
    if expected.startswith("fails"):  # Other libraries' messages change with their versions.
        expected, result = expected.partition(":")[0], result.partition(":")[0]
    assert result == expected

"""The tables of the page on backbones are those of their results."""

from __future__ import annotations

import importlib

import pytest

from docs.tables.results import DOCS
from lit_meta.utils.io import load_json


@pytest.mark.parametrize("name", ("backbones", "backbone_characters", "backbone_adaptation"))
def test_the_page_shows_what_was_measured(name):
    module = importlib.import_module(f"docs.tables.{name}")
    assert module.table(load_json(module.RESULTS)) in (DOCS / "backbones.md").read_text()

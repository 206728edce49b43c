"""The page of the matrix says what the committed verdicts say."""

from __future__ import annotations

import pytest

from docs.tables import interop
from lit_meta.rules import RULES
from tests.interop.models import MODELS

RECORD = interop.DOCS / "interop.json"
PAGE = interop.DOCS / "interop.md"


def test_the_record_has_every_cell():
    verdicts = interop.committed(RECORD)
    assert {name: {host: sorted(cells) for host, cells in hosts.items()} for name, hosts in verdicts.items()} == {
        name: {host: sorted(RULES) for host in model.hosts} for name, model in MODELS.items()
    }


def test_the_page_holds_the_tables_of_the_committed_verdicts():
    page = PAGE.read_text()
    for section, text in interop.sections(interop.committed(RECORD)).items():
        assert f"<!-- {section}:begin -->\n{text}\n<!-- {section}:end -->" in page


def test_every_cell_is_a_tick_or_leads_to_its_sentence():
    verdicts = {"lstm": {"callback": {"ewc": "works", "naca": "refused: no"}, "fabric": {"naca": "fails: crash"}}}
    assert interop.reasons(verdicts) == {"refused: no": 1, "fails: crash": 2}
    assert interop.table(verdicts, "callback", {"lstm": "LSTM"}).splitlines()[-1] == "| LSTM | ✓ | [1](#r1) |"
    assert interop.table(verdicts, "fabric", {}).splitlines()[-1] == "| lstm | **fails** [2](#r2) |"
    assert interop.sentences(verdicts) == '1. <a id="r1"></a>no\n2. <a id="r2"></a>crash'
    assert interop.counts(verdicts) == ("Of 3 cells 1 work, 1 are refused before a weight has changed, and 1 fail.")


def test_missing_verdicts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it with python"):
        interop.committed(tmp_path / "interop.json")

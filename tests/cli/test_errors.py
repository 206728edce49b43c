"""A bug of the program is shown as one; what a user can mend is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_meta.cli import main, zoo
from lit_meta.cli.errors import is_bad_input
from lit_meta.core.state import State
from lit_meta.data.module import EpochSampler
from lit_meta.networks import build_network
from lit_meta.rules import EWC
from lit_meta.zoo import cards


def error_of(function) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.value


@pytest.mark.parametrize(
    "function",
    (
        lambda: EWC(strength=-1.0),  # A ValueError in a helper.
        lambda: build_network("mpl"),  # A KeyError that a function has built.
        lambda: State()["importance"],
        lambda: Path("/nowhere/at/all").read_text(),
        lambda: build_network("mlp", inputs=4, hidden=[2], classes=2)(torch.zeros(1, 5)),  # Raised in torch.
    ),
)
def test_what_we_refuse_and_what_libraries_refuse_is_bad_input(function):
    assert is_bad_input(error_of(function))


@pytest.mark.parametrize(
    "function",
    (
        lambda: EpochSampler(),  # A TypeError, but of a call.
        lambda: list(EpochSampler("size", seed=0)),  # A TypeError inside torch.
        lambda: cards.readme({}),  # A KeyError, but of a dictionary.
        lambda: list(EpochSampler(None, seed="a")),  # A ValueError or TypeError of an expression of ours.
        lambda: State().load_state_dict(None),  # An AttributeError.
    ),
)
def test_what_python_raises_in_our_code_is_a_bug(function):
    assert not is_bad_input(error_of(function))


def test_a_bug_has_a_traceback_a_request_and_a_status_of_its_own(monkeypatch, capsys):
    def broken(name):
        return {}["card"]

    monkeypatch.setattr("lit_meta.zoo.card", broken)
    assert main(["zoo", "show", "mlp.naca_split-digits"]) == 70
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "in broken" in error
    assert "KeyError: 'card'" in error
    assert error.strip().splitlines()[-1].startswith("lit-meta: an internal error")
    with pytest.raises(KeyError):
        main(["--debug", "zoo", "show", "mlp.naca_split-digits"])


def test_an_unforeseen_type_is_a_bug_too(monkeypatch, capsys):
    def broken(options):
        assert options is None

    monkeypatch.setattr(zoo, "list_entries", broken)
    assert main(["zoo", "list"]) == 70
    assert "AssertionError" in capsys.readouterr().err

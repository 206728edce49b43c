"""Modules are found by the names that they had in earlier releases."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lit_meta
from lit_meta._moved import MOVED


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_former_name_gives_the_module_of_today_with_a_warning(name):
    today = importlib.import_module(MOVED[name])
    spec = today.__spec__
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"{name} is now {MOVED[name]}"):
        module = importlib.import_module(name)
    assert module is today
    assert today.__spec__ is spec
    assert today.__name__ == MOVED[name]


def test_no_former_name_is_one_of_today():
    root = Path(lit_meta.__file__).parent
    for name in MOVED:
        path = root.joinpath(*name.split(".")[1:])
        assert not path.with_suffix(".py").exists(), name
        assert not path.is_dir(), name


def test_names_that_never_were_are_still_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lit_meta.sessions")


def test_a_statement_of_an_earlier_release_works():
    code = (
        "from lit_meta.session import Session; from lit_meta.hosts.callback import Metaplasticity; import lit_meta; "
        "assert Session is lit_meta.Session and Metaplasticity is lit_meta.Metaplasticity"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)

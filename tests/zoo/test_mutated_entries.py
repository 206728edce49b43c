"""Whatever is wrong with an entry, loading it says so in one line, runs nothing, and takes neither memory nor time."""

from __future__ import annotations

import os
import sys
import time

import pytest

from lit_meta import zoo
from lit_meta.cli.errors import is_bad_input
from lit_meta.utils.heap import peak_bytes
from lit_meta.utils.paths import zoo_folder
from tests.zoo.mutations import mutations, write

COUNT = int(os.environ.get("LIT_META_MUTATIONS", "5000"))


def problem_with(error: BaseException) -> str:
    """What a user could not bear about an error; empty if it is a clear line."""
    text = " ".join(str(error).split())
    if not is_bad_input(error):
        return f"a fault of the program: {type(error).__name__}: {text}"
    return "" if len(text) > 20 and " " in text else f"vague: {text!r}"


@pytest.fixture
def module_that_writes(tmp_path, monkeypatch):
    written = tmp_path / "written"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "evil_module.py").write_text(f"open({str(written)!r}, 'w').close()\ndef thing(*a, **k): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield written
    sys.modules.pop("evil_module", None)


def test_mutated_entries_are_refused_in_a_line_or_are_harmless(tmp_path, module_that_writes):
    good = {path.name: path.read_bytes() for path in (zoo_folder() / "mlp.ewc_split-digits").iterdir()}
    folder = tmp_path / "entry"
    folder.mkdir()
    write(folder, good)
    started = time.process_time()
    zoo.load(folder, with_rule=True)
    allowed = time.process_time() - started + 2.0
    memory = peak_bytes()
    problems, refused = [], 0
    for what, changed, must_be_refused in mutations(good, COUNT, seed=16):
        write(folder, changed)
        started = time.process_time()
        try:
            zoo.load(folder, with_rule=True)
            if must_be_refused:
                problems.append((what, "loaded"))
        except Exception as error:
            refused += 1
            if problem := problem_with(error):
                problems.append((what, problem))
        if time.process_time() - started > allowed:
            problems.append((what, "slow"))
        write(folder, {file: good[file] for file in changed})
    assert not problems, "\n".join(f"{what}: {problem}" for what, problem in problems[:30])
    assert not module_that_writes.exists()
    assert "evil_module" not in sys.modules
    assert peak_bytes() - memory < 200_000 * 1024
    assert refused > 0.7 * COUNT

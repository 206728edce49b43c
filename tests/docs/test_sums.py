"""The tutorial on sums is true: each snippet runs by itself, and what the text says of it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sums.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
HOLDS = (
    lambda names: names["accuracy"] > 0.95,
    lambda names: names["difference"] < 1e-5,
    lambda names: names["accuracy"] > 0.95,
    lambda names: names["left"].digits > 13 and names["difference"] < 1e-6,
    lambda names: not (names["predicted"] == 3).any(),
)


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_snippets_of_the_tutorial_run_and_give_what_the_text_says(index, capsys):
    namespace: dict[str, object] = {"__name__": "snippet"}
    exec(compile(SNIPPETS[index], "docs/sums.md", "exec"), namespace)
    assert capsys.readouterr().out
    assert HOLDS[index](namespace)


def test_each_snippet_has_its_check():
    assert len(SNIPPETS) == len(HOLDS)

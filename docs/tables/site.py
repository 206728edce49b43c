"""What the site needs to read docstrings as this project writes them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class House(griffe.Extension):
    """An ``Example:`` is a section of code, as ``Examples:`` is; a formula of reStructuredText is shown as written."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value.replace("Example:\n", "Examples:\n")
            obj.docstring.value = re.sub(r"\.\. math::\s*\n?((?:[^\n]+\n?)+)", _formula, text)


def _formula(match: re.Match[str]) -> str:
    lines = [line.strip() for line in match[1].strip().splitlines()]
    return "\n".join(["```", *lines, "```", ""])

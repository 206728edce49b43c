"""What a module of this package says of a class or function, read from its text: nothing is imported.

Importing a rule imports PyTorch, which takes seconds; a list of rules needs a line of text on each.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Declaration:
    """A class or function as its source text describes it.

    Attributes:
        summary: the first line of its docstring.
        values: of a class, the literal values that it or a base class within this package assigns in its body.
    """

    summary: str
    values: dict[str, Any] = field(default_factory=dict)


def declaration(target: str) -> Declaration:
    """What is written about something of this package.

    Args:
        target: ``"lit_meta.module:name"``, as registries hold it.

    Raises:
        ValueError: there is no such class or function at the top of that module.

    Example:
        >>> declaration("lit_meta.rules.ewc:EWC").values["needs_boundaries"]
        True
    """
    module, _, name = target.partition(":")
    tree = _tree(module)
    found = next((node for node in tree.body if getattr(node, "name", None) == name), None)
    if not isinstance(found, (ast.ClassDef, ast.FunctionDef)):
        raise ValueError(f"there is no class or function {name} in {module}")
    summary = (ast.get_docstring(found) or "").split("\n")[0]
    return Declaration(summary, _values(found, module) if isinstance(found, ast.ClassDef) else {})


@lru_cache(maxsize=64)
def _tree(module: str) -> ast.Module:
    path = _PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _values(declared: ast.ClassDef, module: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for base in reversed(declared.bases):
        place = _place(base, module)
        if place is not None:
            values |= declaration(place).values
    for statement in declared.body:
        if isinstance(statement, ast.Assign):
            names, value = [t.id for t in statement.targets if isinstance(t, ast.Name)], statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            names, value = [statement.target.id], statement.value
        else:
            continue
        try:
            literal = ast.literal_eval(value)
        except ValueError:
            continue
        values.update(dict.fromkeys(names, literal))
    return values


def _place(base: ast.expr, module: str) -> str | None:
    """Where a base class is defined, if in this package."""
    if not isinstance(base, ast.Name):
        return None
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == base.id:
            return f"{module}:{base.id}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE.name}."):
            for alias in node.names:
                if (alias.asname or alias.name) == base.id:
                    return f"{node.module}:{alias.name}"
    return None

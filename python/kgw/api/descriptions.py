"""What the fields of the models mean, from the docstrings under them.

They are read from the source when they are asked for: for pydantic to know them, every start of
``kgw run`` would have to.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING

from kgw.api.base import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["fields", "summary"]


def summary(model: type[Model]) -> str:
    """Returns what a model is, in one sentence."""
    return (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def fields(model: type[Model]) -> dict[str, str]:
    """Returns what the fields of a model mean, by name; fields without a docstring are not in it.

    Texts are in Markdown, each in one line.
    """
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, Model):
            found |= _classes(owner.__module__).get(owner.__qualname__, {})
    return {name: text for name, text in found.items() if name in model.model_fields}


@cache
def _classes(module: str) -> Mapping[str, dict[str, str]]:
    """The docstrings of the fields of every class of a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # an installation without sources
        return {}
    return {
        node.name: dict(filter(None, map(_field, node.body, node.body[1:])))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _field(statement: ast.stmt, following: ast.stmt) -> tuple[str, str] | None:
    """The field that a statement is, if a docstring follows it."""
    match statement, following:
        case (
            ast.AnnAssign(target=ast.Name(id=name)),
            ast.Expr(value=ast.Constant(value=str() as text)),
        ):
            return name, " ".join(text.split()).replace("``", "`")
    return None

"""`help()` at run time says what the stubs say."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kgw

if TYPE_CHECKING:
    from collections.abc import Iterator

STUBS = Path(kgw.__file__).with_name("_native")

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def documented(module: str) -> Iterator[tuple[str, str]]:
    """The names in a stub that have documentation, dotted, and the documentation."""
    tree = ast.parse((STUBS / f"{module}.pyi").read_text())
    for node in tree.body:
        if not isinstance(node, Documented):
            continue
        members = node.body if isinstance(node, ast.ClassDef) else []
        for inner in (node, *members):
            # CPython has texts of its own for special methods.
            if not isinstance(inner, Documented) or inner.name.startswith("__"):
                continue
            if text := ast.get_docstring(inner):
                yield node.name if inner is node else f"{node.name}.{inner.name}", text


@pytest.mark.parametrize("module", ["limit", "proxyproto", "route"])
def test_the_extension_and_its_stub_are_documented_alike(module: str) -> None:
    native = importlib.import_module(f"kgw._native.{module}")
    names = dict(documented(module))
    assert len(names) > 3
    for name, text in names.items():
        found = native
        for part in name.split("."):
            found = getattr(found, part)
        assert inspect.getdoc(found) == text, name

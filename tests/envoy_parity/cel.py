"""Parses conditions for Envoy, which takes them parsed only: as much of CEL as the cases have."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]

_WORD = re.compile(
    r"\s*(?:(?P<text>'[^']*')|(?P<number>[0-9]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>&&|\|\||[=!<>]=|[-+*/%!?:.,()\[\]<>]))"
)

#: Binary operators, the weakest first, with the functions that they stand for.
_LEVELS: list[dict[str, str]] = [
    {"||": "_||_"},
    {"&&": "_&&_"},
    {"==": "_==_", "!=": "_!=_", "<": "_<_", ">": "_>_", "<=": "_<=_", ">=": "_>=_", "in": "@in"},
    {"+": "_+_", "-": "_-_"},
    {"*": "_*_", "/": "_/_", "%": "_%_"},
]


def parsed(text: str) -> Json:
    """The ``cel.expr.ParsedExpr`` of an expression."""
    return {"expr": _Parser(text).whole(), "source_info": {}}


class _Parser:
    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        end = 0
        while text[end:].strip():
            found = _WORD.match(text, end)
            assert found is not None, text[end:]
            self.words.append(found[0].strip())
            end = found.end()
        self.words.append("")
        self.at = 0
        self.ids = count(1)

    def whole(self) -> Json:
        made = self._condition()
        assert self.words[self.at] == "", self.words[self.at :]
        return made

    def _takes(self, *words: str) -> str | None:
        word = self.words[self.at]
        if word not in words:
            return None
        self.at += 1
        return word

    def _expects(self, word: str) -> None:
        assert self._takes(word) is not None, self.words[self.at :]

    def _made(self, kind: str, **fields: Any) -> Json:
        return {"id": str(next(self.ids)), kind: fields}

    def _call(self, function: str, *args: Json) -> Json:
        return self._made("call_expr", function=function, args=list(args))

    def _condition(self) -> Json:
        condition = self._level(0)
        if self._takes("?") is None:
            return condition
        then = self._level(0)
        self._expects(":")
        return self._call("_?_:_", condition, then, self._condition())

    def _level(self, level: int) -> Json:
        if level == len(_LEVELS):
            return self._unary()
        left = self._level(level + 1)
        while (operator := self._takes(*_LEVELS[level])) is not None:
            left = self._call(_LEVELS[level][operator], left, self._level(level + 1))
        return left

    def _unary(self) -> Json:
        if self._takes("!") is not None:
            return self._call("!_", self._unary())
        made = self._primary()
        while (mark := self._takes(".", "[")) is not None:
            if mark == "[":
                made = self._call("_[_]", made, self._condition())
                self._expects("]")
                continue
            name = self._next()
            if self._takes("(") is None:
                made = self._made("select_expr", operand=made, field=name)
            else:
                args = self._list(")")
                made = self._made("call_expr", target=made, function=name, args=args)
        return made

    def _primary(self) -> Json:
        word = self._next()
        make: Callable[..., Json] = self._made
        if word == "(":
            made = self._condition()
            self._expects(")")
            return made
        if word == "[":
            return make("list_expr", elements=self._list("]"))
        if word.startswith("'"):
            return make("const_expr", string_value=word[1:-1])
        if word.isdigit():
            return make("const_expr", int64_value=word)
        if word in {"true", "false"}:
            return make("const_expr", bool_value=word == "true")
        if self._takes("(") is None:
            return make("ident_expr", name=word)
        args = self._list(")")
        if word == "has":
            select = args[0]["select_expr"] | {"test_only": True}
            return make("select_expr", **select)
        return self._call(word, *args)

    def _list(self, end: str) -> list[Json]:
        found: list[Json] = []
        while self._takes(end) is None:
            found.append(self._condition())
            if self._takes(",") is None:
                self._expects(end)
                break
        return found

    def _next(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

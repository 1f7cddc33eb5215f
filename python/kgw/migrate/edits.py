"""Changes of a text: of the characters that a change is about, and of no others.

What these functions take for granted about the layout need not be so: who calls them reads the text
again and compares. They only have to be right, or wrong in a way that can be seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kgw.migrate.rules import TARGETS

if TYPE_CHECKING:
    from kgw.migrate.rules import Change
    from kgw.source.memory import FieldPath, RawObject

_STEP: Final = "  "
_BRACKETS: Final = {"{": "}", "[": "]"}


class Unclear(Exception):
    """The layout is none that is understood."""


def edited(text: str, raw: RawObject, change: Change) -> str:
    """The text with a change of an object that stands in it.

    Raises:
        Unclear: the text has a layout that is not understood.
    """
    page = _Page(text, raw)
    if change.whole:
        spec = raw.object.get("spec")
        names = [name for name in spec if name not in TARGETS] if isinstance(spec, dict) else []
        # What comes later in the text is changed first: the places of what is before stay.
        moved = _move(page, list(spec or ()), set(names)) if names else None
        kind = (*page.span(("kind",)), page.like(("kind",), "ListenerPolicy"))
        return page.replaced(*sorted([kind, *([moved] if moved else [])]))
    if change.name is None:
        return page.replaced(_dropped(page, change.path))
    parts = [(*page.span(change.path, key=True), page.like(change.path, change.name, key=True))]
    if change.value is not None:
        if change.value != {}:
            raise Unclear
        parts.append((*page.span(change.path), "{}"))
    return page.replaced(*parts)


_Part = tuple[int, int, str]


class _Page:
    """A text with the places of an object in it."""

    def __init__(self, text: str, raw: RawObject) -> None:
        self.text = text
        self.raw = raw
        self.lines = text.splitlines(keepends=True) if "\r" not in text else text.split("\n")
        if "\r" in text:
            self.lines = [f"{one}\n" for one in self.lines[:-1]] + self.lines[-1:]
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def place(self, path: FieldPath, *, key: bool = False) -> tuple[int, int, int]:
        """Line from 0, and the columns from 0, of a field."""
        origin = self.raw.origin
        positions = None if origin is None else origin.positions
        found = positions and positions.locate((*origin.prefix, *path), key=key) if origin else None
        if not found or found[0] > len(self.lines):
            raise Unclear
        return found[0] - 1, found[1] - 1, found[2] - 1

    def span(self, path: FieldPath, *, key: bool = False) -> tuple[int, int]:
        """The first character of a field, and the one after its last."""
        line, column, end = self.place(path, key=key)
        return self.starts[line] + column, self.starts[line] + end

    def like(self, path: FieldPath, new: str, *, key: bool = False) -> str:
        """A text in the quotes that a field is in."""
        start, _ = self.span(path, key=key)
        quote = self.text[start]
        return f"{quote}{new}{quote}" if quote in "\"'" else new

    def replaced(self, *parts: _Part) -> str:
        """The text with others in some places, which are in order."""
        text = self.text
        for start, end, new in reversed(parts):
            text = text[:start] + new + text[end:]
        return text


def _dropped(page: _Page, path: FieldPath) -> _Part:
    """Takes a field with a plain value out."""
    start, _ = page.span(path, key=True)
    _, end = page.span(path)
    line = page.place(path, key=True)[0]
    before = page.text[page.starts[line] : start]
    after = page.text[end : page.starts[line + 1]]
    alone = re.fullmatch(r"[ \t]*(#.*)?\s*", after)
    if not before.strip() and alone:
        rest = page.text[: page.starts[line]].rstrip()
        if not rest.endswith((",", "{")):  # a line of a block
            if alone[1]:
                return start, end + alone.start(1), ""
            return page.starts[line], page.starts[line + 1], ""
    comma = re.compile(r"\s*,[ \t]*").match(page.text, end)
    if comma:
        end = comma.end()
        if not before.strip() and not page.text[end : page.starts[line + 1]].strip():
            return page.starts[line], page.starts[line + 1], ""
        return start, end, ""
    earlier = re.search(r",\s*\Z", page.text[:start])
    return (earlier.start() if earlier else start), end, ""


def _move(page: _Page, names: list[str], moved: set[str]) -> _Part:
    """Puts fields of the spec under ``default.httpSettings``."""
    places = {name: page.place(("spec", name), key=True) for name in names}
    order = sorted(names, key=lambda name: places[name])
    columns = {place[1] for place in places.values()}
    alone = all(not page.lines[line][:column].strip() for line, column, _ in places.values())
    start, _ = page.span(("spec", order[0]), key=True)
    flow = page.text[:start].rstrip().endswith("{")
    if flow:
        return _move_in_flow(page, order, moved)
    if not alone or len(columns) != 1:
        raise Unclear
    return _move_in_block(page, order, moved, columns.pop())


def _move_in_block(page: _Page, order: list[str], moved: set[str], column: int) -> _Part:
    """Moves whole lines, with the comments above them."""
    firsts = [_with_comments(page, page.place(("spec", name), key=True)[0]) for name in order]
    last = page.place(("spec", order[-1]), key=True)[0] + 1
    while last < len(page.lines) and _belongs(page.lines[last], column):
        last += 1
    while not page.lines[last - 1].strip():
        last -= 1
    ends = [*firsts[1:], last]
    break_ = "\r\n" if page.lines[firsts[0]].endswith("\r\n") else "\n"
    indent = " " * column
    kept: list[str] = []
    under: list[str] = []
    where = None
    for name, first, end in zip(order, firsts, ends, strict=True):
        lines = page.lines[first:end]
        if not lines[-1].endswith("\n"):
            lines[-1] += break_
        if name in moved:
            where = len(kept) if where is None else where
            under += [_STEP * 2 + line if line.strip() else line for line in lines]
        else:
            kept += lines
    head = [f"{indent}default:{break_}", f"{indent}{_STEP}httpSettings:{break_}"]
    kept[where:where] = [*head, *under]
    new = "".join(kept)
    whole = page.text[page.starts[firsts[0]] : page.starts[last]]
    new = new if whole.endswith("\n") else new.removesuffix(break_)
    return page.starts[firsts[0]], page.starts[last], new


def _with_comments(page: _Page, line: int) -> int:
    """The first of the lines of comments right above a line, or itself."""
    while line > 0 and page.lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line


def _belongs(line: str, column: int) -> bool:
    """Whether a line is a part of the field that began above it in a column."""
    if not line.strip():
        return True
    indent = len(line) - len(line.lstrip(" "))
    return indent > column or (indent == column and line[indent:].startswith(("- ", "-\n", "#")))


def _move_in_flow(page: _Page, order: list[str], moved: set[str]) -> _Part:
    """Moves what stands between braces, as in JSON."""
    spans: dict[str, tuple[int, int]] = {}
    for name in order:
        start, end = page.span(("spec", name), key=True)
        spans[name] = (start, _end_of_flow(page.text, end))
    quote = page.text[spans[order[0]][0]]
    quote = quote if quote in "\"'" else ""
    head = f"{quote}default{quote}: {{{quote}httpSettings{quote}: {{"
    numbers = [number for number, name in enumerate(order) if name in moved]
    first, last = numbers[0], numbers[-1]
    if numbers == list(range(first, last + 1)):
        start, end = spans[order[first]][0], spans[order[last]][1]
        return start, end, f"{head}{page.text[start:end]}}}}}"
    texts = {name: page.text[start:end] for name, (start, end) in spans.items()}
    inner = ", ".join(texts[name] for name in order if name in moved)
    kept = [texts[name] for name in order if name not in moved]
    start, end = spans[order[0]][0], spans[order[-1]][1]
    return start, end, ", ".join([*kept, f"{head}{inner}}}}}"])


def _end_of_flow(text: str, start: int) -> int:
    """Where the value ends that stands between braces and begins somewhere after a place."""
    open_: list[Any] = []
    at = start
    while at < len(text):
        one = text[at]
        if one in "\"'":
            at = _end_of_quotes(text, at)
            continue
        if not open_ and one in ",}":
            return start + len(text[start:at].rstrip())
        if one in _BRACKETS:
            open_.append(_BRACKETS[one])
        elif one in "]}" and open_.pop() != one:
            raise Unclear
        at += 1
    raise Unclear


def _end_of_quotes(text: str, start: int) -> int:
    """The place after a text in quotes that begins at a place."""
    quote, at = text[start], start + 1
    while at < len(text):
        if text[at] == "\\" and quote == '"':
            at += 1
        elif text[at] == quote:
            if quote == '"' or text[at + 1 : at + 2] != "'":
                return at + 1
            at += 1
        at += 1
    raise Unclear

"""Every kind of byte at every place of a request where framing or a name is decided."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lane import Case

BYTES = [
    *range(0x21),
    *(ord(it) for it in "\"#$%'()*+,-./:;<=>?@[\\]^_`{|}~5a"),
    *(0x7F, 0x80, 0x85, 0xA0, 0xC3, 0xFF),
]
"""All controls and all punctuation; of the rest, some."""

HEAD = "Host: lab.test\r\nConnection: close\r\n"
CHUNKED = f"POST {{target}} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n"
LENGTH = f"POST {{target}} HTTP/1.1\r\n{HEAD}"

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TEXT = r"[\t -~\x80-\xff]"
NOTHING = r"(?!)"


@dataclass(frozen=True)
class Place:
    """A request with a hole for one byte."""

    name: str
    request: str
    """With `{target}` and with `@` for the byte."""
    valid: str
    """A pattern of the bytes with which it is sound."""
    may: str = NOTHING
    """A pattern of those that a server may read in one way or refuse."""


def _get(lines: str) -> str:
    return f"GET {{target}} HTTP/1.1\r\n{HEAD}{lines}\r\n"


PLACES = [
    Place("method", f"G@T {{target}} HTTP/1.1\r\n{HEAD}\r\n", TOKEN, may="[\r\n]"),
    Place("before-method", f"@GET {{target}} HTTP/1.1\r\n{HEAD}\r\n", TOKEN, "[\r\n]"),
    Place(
        "target",
        f"GET {{target}}@ HTTP/1.1\r\n{HEAD}\r\n",
        r"[!$&'()*+,\-./:;=?@_~0-9A-Za-z]",
        may=r"[\"#%<>\[\\\]^`{|}\x80-\xff]",
    ),
    Place("before-version", f"GET {{target}}@HTTP/1.1\r\n{HEAD}\r\n", " "),
    Place("version", f"GET {{target}} HTTP/1.@\r\n{HEAD}\r\n", "1", may="[0-9]"),
    Place("major", f"GET {{target}} HTTP/@.1\r\n{HEAD}\r\n", "1"),
    Place("after-version", f"GET {{target}} HTTP/1.1@\r\n{HEAD}\r\n", NOTHING, may="[ \t\r\n]"),
    Place("name", _get("X@A: v\r\n"), rf"{TOKEN}|:"),
    Place("name-start", _get("@X-A: v\r\n"), TOKEN),
    Place("name-end", _get("X-A@: v\r\n"), rf"{TOKEN}|:"),
    Place("value-start", _get("X-A:@v\r\n"), TEXT, may=r"[^\0\r\n]"),
    Place("value", _get("X-A: a@b\r\n"), TEXT, may=r"[^\0\r\n]"),
    Place("line-end", _get("X-A: v\r@X-B: w\r\n"), "\n"),
    Place("before-line-end", _get("X-A: v@\r\n"), TEXT, may=r"[^\0\r\n]"),
    Place(
        "host",
        "GET {target} HTTP/1.1\r\nHost: la@b.test\r\nConnection: close\r\n\r\n",
        r"[!$&'()*+,\-.;=_~0-9A-Za-z]",
        may=r"[!$&'()*+,;=~%]",
    ),
    Place("length-start", LENGTH + "Content-Length:@5\r\n\r\nhello", "[ \t]"),
    Place("length-end", LENGTH + "Content-Length: 5@\r\n\r\nhello", "[ \t]"),
    Place("coding-start", CHUNKED.replace(": ch", ": @ch") + "0\r\n\r\n", "[ \t]", ","),
    Place("coding-end", CHUNKED.replace("ked\r", "ked@\r") + "0\r\n\r\n", "[ \t]", ","),
    Place("size-start", CHUNKED + "@5\r\nhello\r\n0\r\n\r\n", NOTHING),
    Place("size-end", CHUNKED + "5@\r\nhello\r\n0\r\n\r\n", NOTHING, may="[ \t;]"),
    Place("size-line-end", CHUNKED + "5\r@hello\r\n0\r\n\r\n", "\n"),
    Place("extension", CHUNKED + "5;a@b\r\nhello\r\n0\r\n\r\n", rf"{TOKEN}|=", may="[ \t;]"),
    Place("extension-value", CHUNKED + "5;a=@\r\nhello\r\n0\r\n\r\n", TOKEN, may="[ \t]"),
    Place(
        "quoted-extension",
        CHUNKED + '5;a="@"\r\nhello\r\n0\r\n\r\n',
        r"[\t !#-\[\]-~\x80-\xff]",
    ),
    Place("data-end", CHUNKED + "5\r\nhello@\n0\r\n\r\n", "\r"),
    Place("data-line-end", CHUNKED + "5\r\nhello\r@0\r\n\r\n", "\n"),
    Place("last-size", CHUNKED + "5\r\nhello\r\n0@\r\n\r\n", "0", may="[ \t;]"),
    Place("trailer-name", CHUNKED + "0\r\nX@A: v\r\n\r\n", rf"{TOKEN}|:"),
    Place("trailer-value", CHUNKED + "0\r\nX-A: a@b\r\n\r\n", TEXT, may=r"[^\0\r\n]"),
    Place("trailer-line-end", CHUNKED + "0\r\nX-A: v\r@\r\n", "\n"),
    Place("end", CHUNKED + "0\r\n\r@", "\n"),
]


def cases() -> list[Case]:
    """A case for each byte at each place."""
    return [_case(place, byte) for place in PLACES for byte in BYTES]


def _case(place: Place, byte: int) -> Case:
    name = f"{place.name}-{byte:02x}"
    character = chr(byte)
    request = place.request.replace("{target}", f"/c/{name}").replace("@", character)
    level = "must_reject"
    if re.fullmatch(place.may, character):
        level = "may"
    elif re.fullmatch(place.valid, character):
        level = "valid"
    found: Case = {"id": name, "cls": place.name, "level": level, "data": request}
    if level == "valid":
        body = "hello" if "hello" in request else ""
        found["interp"] = [[request.split(" ")[0], f"*/c/{name}", body]]
    return found

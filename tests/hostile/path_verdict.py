"""The verdict on a spelling of a path that a rule denies: did the request get past the rule?"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from tests.peers import frames
from tests.peers.h2 import Connection

from . import strict

if TYPE_CHECKING:
    from .lane import Case, Lane, Patience, Verdict

DENIED = "/admin"

EQUAL: dict[str, str] = {
    "plain": "/admin/secret",
    "dot": "/./admin/secret",
    "dot-dot": "/x/../admin/secret",
    "dot-dot-twice": "/x/y/../../admin/secret",
    "dot-inside": "/admin/./secret",
    "above-root": "/../admin/secret",
    "far-above-root": "/../../admin/secret",
    "escaped-letter": "/%61dmin/secret",
    "escaped-letters": "/%61%64%6d%69%6e/secret",
    "escaped-dot": "/%2e/admin/secret",
    "escaped-dot-dot": "/x/%2e%2e/admin/secret",
    "half-escaped-dot-dot": "/x/.%2e/admin/secret",
    "escaped-dot-dot-upper": "/x/%2E%2E/admin/secret",
    "escaped-later": "/admin/%73ecret",
    "absolute": "http://lab.test/admin/secret",
    "absolute-dots": "http://lab.test/x/../admin/secret",
    "absolute-upper": "HTTP://LAB.TEST/admin/secret",
    "query": "/admin/secret?x=y",
    "absolute-empty-segment": "http://lab.test//../admin/secret",
    "escaped-dot-dot-at-the-end": "/admin/x/%2e%2e",
    "dot-dot-at-the-end": "/admin/x/..",
    "escaped-digit-case": "/%61%64%6D%69%6E",
    "only-the-prefix": "/admin",
    "only-the-prefix-slash": "/admin/",
    "query-with-dots": "/admin?/../x",
    "many-dots": "/" + "./" * 40 + "admin/secret",
    "deep-dot-dot": "/" + "x/" * 40 + "../" * 40 + "admin/secret",
}
"""Spellings that RFC 3986 makes equal to a denied path (5.2.4, 6.2.2)."""

SIMILAR: dict[str, str] = {
    "two-slashes": "//admin/secret",
    "three-slashes": "///admin/secret",
    "slashes-before-dots": "/x//../admin/secret",
    "escaped-slash-first": "/%2fadmin/secret",
    "escaped-slashes-and-dots": "/x%2f..%2fadmin/secret",
    "escaped-slash-after-dots": "/x/..%2fadmin/secret",
    "escaped-slash-inside": "/admin%2fsecret",
    "escaped-twice": "/%2561dmin/secret",
    "dots-escaped-twice": "/x/%252e%252e/admin/secret",
    "slashes-escaped-twice": "/x%252f..%252fadmin/secret",
    "backslashes": "/x\\..\\admin\\secret",
    "escaped-backslashes": "/x%5c..%5cadmin%5csecret",
    "backslash-first": "\\admin\\secret",
    "parameter": "/admin;/secret",
    "parameter-value": "/admin;a=b/secret",
    "parameter-after-dots": "/x/..;/admin/secret",
    "escaped-parameter-after-dots": "/x/..%3b/admin/secret",
    "upper": "/ADMIN/secret",
    "capital": "/Admin/secret",
    "nul": "/admin%00/secret",
    "nul-first": "/%00/../admin/secret",
    "tab": "/%09admin/secret",
    "space": "/%20admin/secret",
    "space-after": "/admin%20/secret",
    "dot-after": "/admin./secret",
    "overlong-slash": "/%c0%afadmin/secret",
    "overlong-dots": "/x/%c0%ae%c0%ae/admin/secret",
    "wide-slash": "/%ef%bc%8fadmin/secret",
    "fragment": "/x#/../admin/secret",
    "fragment-after": "/admin#x",
    "escaped-question-mark": "/admin%3f/secret",
    "escaped-hash": "/admin%23/secret",
    "microsoft-escape": "/%u0061dmin/secret",
    "line-feed": "/%0aadmin/secret",
    "dots-in-file": "/admin/%2e%2e%2fadmin/secret",
}
"""Spellings that some servers take for a denied path, and RFC 3986 does not."""

OTHER: dict[str, str] = {"leaves-it": "/admin/../x", "longer-name": "/administrator"}
"""Paths that are not denied."""


def cases() -> list[Case]:
    """Each spelling in HTTP/1 and in HTTP/2."""
    kinds = (("equal", EQUAL), ("similar", SIMILAR), ("other", OTHER))
    return [
        {"id": f"{version} {name}", "cls": kind, "target": target, "version": version}
        for kind, table in kinds
        for name, target in table.items()
        for version in ("h1", "h2")
        if version == "h1" or not target.lower().startswith("http:")
    ]


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Asks for the target; EXPOSED is what only a loose reader takes for a denied path."""
    if case["version"] == "h1":
        request = f"GET {case['target']} HTTP/1.1\r\nhost: lab.test\r\nconnection: close\r\n\r\n"
        answer, _ = lane.talk([(request.encode("latin-1"), 0)], patience)
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    else:
        with Connection(lane.address) as connection:
            connection.send(frames.request(1, case["target"]))
            status = connection.response(1, patience.first).status or 0
    seen = [
        it.target.decode("latin-1")
        for data in lane.backend.received()
        for it in strict.read_all(data)[0]
    ]
    summary = f"{case['target']!r}: {status}, the backend saw {seen}"
    if case["cls"] == "other":
        return ("PASS" if status == 200 else "OVERSTRICT"), summary
    if any(_is_denied(_normal(target)) for target in seen):
        return "UNSAFE", summary
    if any(_is_denied(reading) for target in seen for reading in _loose_readings(target)):
        return "EXPOSED", summary
    return "PASS", summary


def _is_denied(path: str) -> bool:
    return path == DENIED or path.startswith(DENIED + "/")


def _path(target: str) -> str:
    path = target.split("#")[0].split("?")[0]
    return "/" + path.split("://", 1)[1].partition("/")[2] if "://" in path else path


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def _normal(target: str) -> str:
    def unescaped(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if re.match(r"[A-Za-z0-9\-._~]", character) else match[0].upper()

    return _without_dots(re.sub(r"%([0-9A-Fa-f]{2})", unescaped, _path(target)))


def _loose_readings(target: str) -> set[str]:
    readings = set()
    for times, backslashes, parameters in product((1, 2), (False, True), (False, True)):
        path = _path(target).encode("latin-1")
        for _ in range(times):
            path = unquote_to_bytes(path)
        text = path.decode("latin-1").replace("\xc0\xaf", "/").replace("\xc0\xae", ".")
        text = text.replace("\0", "").strip("\t\n ").lower()
        if backslashes:
            text = text.replace("\\", "/")
        if parameters:
            text = re.sub(r";[^/]*", "", text)
        segments = [segment.strip(" \t\n") for segment in re.sub(r"/+", "/", text).split("/")]
        readings.add(_without_dots("/".join(segments)))
    return readings

"""The verdict on a request: what the backend saw of it, and whether another client was harmed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import panel, strict
from .backend import text
from .lane import Case, Lane, Patience, Segments, Verdict, statuses

if TYPE_CHECKING:
    from .strict import Request

PANEL_LIMIT = 60_000
"""Longer bytes are not shown to the panel: their cases are about size."""

HELD_BACK = {
    "f-conn-hop": rb"\nx-secret:",
    "f-keepalive": rb"\n(keep-alive|proxy-connection):",
    "f-te-gzip": rb"\nte: *gzip",
    "f-upgrade-h2c": rb"\n(upgrade: *h2c|http2-settings:)",
    "h-abs-mismatch": rb"\nhost: *evil",
    "te-conn-nominated": rb"\nconnection: *transfer-encoding",
    "cl-conn-nominated": rb"\nconnection: *content-length",
}
"""What must not go further in some cases (RFC 9110 7.6.1, RFC 9112 3.2.2)."""

Seen = tuple[str, str, str]
"""Method, target and body of a request that the backend saw."""


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Sends the case and a victim after it, and judges what came of both."""
    segments: Segments = [(text(data), ms / 1000) for data, ms in case.get("seg", [])]
    answer, state = lane.talk(segments or [(text(case["data"]), 0)], patience)
    waits, received = lane.backend.is_left_waiting(), lane.backend.received()
    victim, victim_state = lane.ask(f"/victim/{case['id']}")
    if victim_state == "refused":
        return "CRASH", "the proxy takes no more connections"
    if f'"/victim/{case["id"]}"'.encode() not in victim or len(statuses(victim)) != 1:
        return "UNSAFE", f"the next client got {victim[:200]!r}"
    codes = [status for status in statuses(answer) if status >= 200]
    if not received:
        return kept_out(case, codes, state)
    return let_in(case, received, waits, codes)


def kept_out(case: Case, codes: list[int], state: str) -> Verdict:
    """The verdict on a case of which the backend saw nothing."""
    level = case["level"]
    if level == "info":
        return "INFO", f"not forwarded {codes} {state}"
    if level == "valid":
        answered = case["id"] == "v-options-star" and codes and codes[0] < 400
        return ("PASS" if answered else "OVERSTRICT"), f"not forwarded: {codes} {state}"
    if codes or state in ("closed", "reset"):
        return "PASS", f"refused {codes or state}"
    return "STALL", "neither answered nor forwarded"


def let_in(case: Case, received: list[bytes], waits: bool, codes: list[int]) -> Verdict:
    """The verdict on a case of which the backend saw ``received``."""
    requests: list[Request] = []
    faults: set[str] = set()
    partial = ambiguous = False
    for data in received:
        found, wrong, complete = strict.read_all(data)
        requests += found
        faults |= wrong
        partial |= not complete
        ambiguous |= len(data) < PANEL_LIMIT and panel.is_ambiguous(data)
    seen = [_seen(request) for request in requests]
    hard = faults & strict.UNSAFE
    level, expected = case["level"], case.get("interp")
    summary = f"{[(method, target[:50], len(body)) for method, target, body in seen]} {codes}"
    held_back = HELD_BACK.get(case["id"])
    if held_back and any(re.search(held_back, data.lower()) for data in received):
        return "LENIENT", f"{held_back!r} reached the backend"
    if partial and not ambiguous and not hard - {"partial"} and level != "valid":
        if waits:
            return "STALL", f"a prefix was forwarded and is waited on {summary}"
        if len(seen) <= len(expected or [1]):
            return "PASS", f"broken off, and the upstream connection closed {summary}"
    if level == "info":
        return "INFO", f"forwarded {summary}"
    if ambiguous or hard:
        return "UNSAFE", f"forwarded with {sorted(hard)}, ambiguous: {ambiguous}"
    if expected is None:
        verdict = "LENIENT" if level == "must_reject" else "PASS"
        return verdict, f"forwarded unambiguously {summary} {sorted(faults)}"
    if len(seen) > len(expected) or not all(map(_same, expected, seen)):
        return "UNSAFE", f"framed otherwise than the RFC does {summary}"
    if level == "valid" and (len(seen) < len(expected) or codes[:1] >= [400] or partial):
        return "OVERSTRICT", f"forwarded in part, or answered with an error {summary}"
    if level == "must_reject":
        return "LENIENT", f"forwarded as the RFC reads it {summary}"
    return "PASS", f"forwarded as the RFC reads it {summary}"


def _seen(request: Request) -> Seen:
    return (
        request.method.decode("latin-1"),
        request.target.decode("latin-1"),
        request.body.decode("latin-1"),
    )


def _same(expected: list[str], seen: Seen) -> bool:
    """Whether a request is the expected one; ``*`` before a target finds it anywhere."""
    method, target, body = expected
    wanted = text(target).decode("latin-1")
    found = wanted[1:] in seen[1] if wanted.startswith("*") else seen[1].endswith(wanted)
    return method == seen[0] and found and (body is None or text(body).decode("latin-1") == seen[2])

"""The verdict on a backend's answer: what of it reached the client, and who got the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .backend import text
from .strict import TOKEN

if TYPE_CHECKING:
    from .lane import Case, Lane, Patience, Verdict

UNSAFE = {
    *("te-and-cl", "many-cl", "bad-cl", "bad-te", "control-in-head", "obs-fold"),
    *("bad-status-line", "no-colon", "bad-chunk"),
}
POISON = b"POISON"
"""What the cases hide behind an answer."""


@dataclass
class Response:
    """An answer as a strict client reads it; ``whole`` is none when only its end tells."""

    status: int
    body: bytes
    whole: bool | None


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Asks for the case's answer, then for three more of the backend's own."""
    target, method = f"/r/{case['id']}", case["method"]
    lane.backend.script_target, lane.backend.script = target.encode(), case
    body = text(case.get("body", ""))
    length = f"content-length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nhost: lab.test\r\n{length}\r\n"
    answer, state = lane.talk([(head.encode() + body, 0)], patience)
    for number in range(3):
        victim_target = f"/victim/{case['id']}-{number}"
        victim, victim_state = lane.ask(victim_target)
        if victim_state == "refused":
            return "CRASH", "the proxy takes no more connections"
        own = f'"{victim_target}"'.encode() in victim
        if POISON in victim or (victim.startswith(b"HTTP/1.1 200") and not own):
            return "UNSAFE", f"the next client got {victim[:200]!r}"
    responses, faults = _read(answer, head=method == "HEAD")
    return _judge(case, answer, state, responses, faults)


def _judge(
    case: Case, answer: bytes, state: str, responses: list[Response], faults: set[str]
) -> Verdict:
    final = [response for response in responses if response.status >= 200]
    short = [(it.status, len(it.body), it.whole) for it in responses]
    summary = f"{short} {sorted(faults)} {state}"
    if len(final) > 1 or faults & UNSAFE:
        return "UNSAFE", f"passed on: {summary}"
    first = final[0] if final else Response(0, b"", None)
    if POISON in answer and case["id"] != "rs-1xx-101":
        # With the end of the connection as the only end, there is nothing beyond it.
        return ("LENIENT" if first.whole is None else "UNSAFE"), f"what follows came: {summary}"
    if state == "idle" and not final:
        return "STALL", summary
    told = first.status >= 500 or first.whole is False or not final
    told = told or (first.whole is None and state == "reset")
    match case["expect"]:
        case "valid":
            empty = case["method"] == "HEAD" or first.status in (204, 304, 413)
            right = bool(final) and (empty or first.body == b"hello") and first.whole is not False
            return ("PASS" if right else "OVERSTRICT"), summary
        case "5xx":
            return ("PASS" if first.status >= 500 else "UNSAFE" if final else "LENIENT"), summary
        case "incomplete":
            return ("PASS" if told else "UNSAFE"), summary
        case "incomplete-or-repaired":
            return ("PASS" if told else "LENIENT"), summary
    return "PASS", summary


def _read(data: bytes, *, head: bool) -> tuple[list[Response], set[str]]:
    found: list[Response] = []
    faults: set[str] = set()
    position = 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position)
        if end < 0:
            faults.add("partial-head")
            break
        first, *lines = data[position:end].split(b"\r\n")
        position = end + 4
        status_line = re.fullmatch(rb"HTTP/1\.[01] ([0-9]{3})( .*)?", first)
        if status_line is None:
            faults.add("bad-status-line")
            break
        status = int(status_line[1])
        codings, lengths = _fields([first, *lines], faults)
        if status < 200 or head or status in (204, 304):
            found.append(Response(status, b"", whole=True))
        elif codings:
            response, position = _chunked(status, data, position, faults)
            found.append(response)
            if not response.whole:
                break
        elif lengths and lengths[0].isdigit():
            size = int(lengths[0])
            body = data[position : position + size]
            found.append(Response(status, body, len(body) == size))
            position += size
        else:
            found.append(Response(status, data[position:], None))
            break
    return found, faults


def _fields(lines: list[bytes], faults: set[str]) -> tuple[list[bytes], list[bytes]]:
    """Returns the transfer codings and the content lengths."""
    codings: list[bytes] = []
    lengths: list[bytes] = []
    if re.search(rb"[\x00\r\n]", b"".join(lines)):
        faults.add("control-in-head")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            faults.add("obs-fold")
        elif not colon:
            faults.add("no-colon")
        elif not TOKEN.fullmatch(name):
            faults.add("bad-name")
        elif name.lower() == b"content-length":
            lengths.append(value.strip())
        elif name.lower() == b"transfer-encoding":
            codings.append(value.strip().lower())
    if codings and lengths:
        faults.add("te-and-cl")
    if len(set(lengths)) > 1:
        faults.add("many-cl")
    if not all(re.fullmatch(rb"[0-9]{1,18}", length) for length in lengths):
        faults.add("bad-cl")
    if codings and codings != [b"chunked"]:
        faults.add("bad-te")
    return codings, lengths


def _chunked(status: int, data: bytes, position: int, faults: set[str]) -> tuple[Response, int]:
    response = Response(status, b"", whole=False)
    while (end := data.find(b"\r\n", position)) >= 0:
        line = re.match(rb"[0-9a-fA-F]+", data[position:end])
        if line is None:
            faults.add("bad-chunk")
            break
        size = int(line[0], 16)
        position = end + 2
        if size == 0:
            trailers = data.find(b"\r\n\r\n", end)
            response.whole = trailers >= 0
            return response, trailers + 4
        response.body += data[position : position + size]
        position += size + 2
    return response, position

"""The verdict on a PROXY header: is the connection served, and whose does it say it is?"""

from __future__ import annotations

from . import strict
from .backend import text
from .lane import Case, Lane, Patience, Segments, Verdict, statuses

SOURCE = "10.1.2.3"
"""The client that the refused headers name."""

HEADER_TIMEOUT_MS = 500


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Sends the header and a request, and judges what the backend saw."""
    header = text(case["data"])
    request = f"GET /pp/{case['id']} HTTP/1.1\r\nhost: lab.test\r\n\r\n".encode()
    if case["expect"] == "timeout":
        _, state = lane.talk([(header, 0)], patience)
        return ("STALL" if state == "idle" else "PASS"), state
    segments: Segments = [(header + request, 0)]
    if case.get("seg"):
        segments = [(bytes([byte]), 0.001) for byte in header] + [(request, 0)]
    answer, state = lane.talk(segments, patience)
    requests = [it for data in lane.backend.received() for it in strict.read_all(data)[0]]
    sources = [
        source.decode("latin-1")
        for it in requests
        for value in it.values(b"x-forwarded-for")
        for source in value.split(b",")
    ]
    if case["expect"] == "accept":
        if not requests:
            return "OVERSTRICT", f"not forwarded {statuses(answer)} {state}"
        wanted = case.get("src") or ""
        wrong = wanted[1:] in sources if wanted.startswith("!") else wanted not in (*sources, "")
        return ("UNSAFE" if wrong else "PASS"), f"forwarded for {sources}, not for {wanted}"
    if not requests:
        return ("STALL" if state == "idle" and not answer else "PASS"), state
    injected = any(it.values(b"x-admin") for it in requests)
    if injected or case["id"] == "pp-missing" or sources not in ([], [SOURCE]):
        return "UNSAFE", f"forwarded for {sources}"
    return "LENIENT", f"accepted for {sources}"

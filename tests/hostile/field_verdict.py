"""The verdict on a forged field: does a backend get it as the client wrote it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import frames
from tests.peers.h2 import Connection

from . import strict

if TYPE_CHECKING:
    from .lane import Case, Lane, Patience, Verdict

ADDRESS = "203.0.113.66"

STATED: dict[str, str] = {
    "X-Forwarded-For": ADDRESS,
    "X-Forwarded-Proto": "https",
    "X-Envoy-External-Address": ADDRESS,
    "X-Envoy-Internal": "true",
    "Forwarded": f"for={ADDRESS}",
    "X-Real-IP": ADDRESS,
    "True-Client-IP": ADDRESS,
    "X-Client-IP": ADDRESS,
    "X-Cluster-Client-IP": ADDRESS,
    "X-Original-Forwarded-For": ADDRESS,
    "CF-Connecting-IP": ADDRESS,
    "X_Real_IP": ADDRESS,
    "True-Client_IP": ADDRESS,
    "X-Forwarded-Client-Cert": "By=spiffe://a;URI=spiffe://admin",
    "X-Request-Id": "forged",
    "X_Forwarded_For": ADDRESS,
    "X-Forwarded_For": ADDRESS,
    "x_forwarded-for": ADDRESS,
    "X_Forwarded_Proto": "https",
    "X-Forwarded_Proto": "https",
    "X_Forwarded_Client_Cert": "URI=spiffe://admin",
    "X-Forwarded-Client_Cert": "URI=spiffe://admin",
    "X_Envoy_External_Address": ADDRESS,
    "X-Envoy-External_Address": ADDRESS,
    "X_Envoy_Internal": "true",
    "X_Request_Id": "forged",
}
"""Who the client is, as only the proxy may say, and names that CGI reads as one of those."""

STEERING: dict[str, str] = {
    "X-Envoy-Original-Path": "/forged",
    "X-Envoy-Original-Host": "forged.test",
    "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
    "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms": "1",
    "X-Envoy-Expected-Rq-Timeout-Ms": "77",
    "X-Envoy-Retry-On": "5xx",
    "X-Envoy-Retry-Grpc-On": "cancelled",
    "X-Envoy-Max-Retries": "50",
    "X-Envoy-Decorator-Operation": "forged",
    "X-Envoy-Force-Trace": "true",
    "X-Envoy-Ip-Tags": "forged",
    "X-Envoy-Downstream-Service-Cluster": "forged",
    "X_Envoy_Original_Path": "/forged",
    "X-Envoy-Max_Retries": "50",
}
"""What would steer a proxy on the way."""

PASSING: dict[str, str] = {
    "X-Forwarded-Host": "forged.test",
    "X-Forwarded-Port": "6666",
    "X-Original-Url": "/admin",
    "X-Rewrite-Url": "/admin",
    "X-Http-Method-Override": "DELETE",
    "X-Peer": "spiffe://admin",
    "Traceparent": "00-11111111111111111111111111111111-1111111111111111-01",
    "X-B3-Sampled": "1",
}
"""What this proxy says nothing about, as Envoy does not."""

NOMINATED = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id", "X-Envoy-External-Address")
"""What a client could have removed by naming it in `Connection`, were it not the proxy's own."""


def cases() -> list[Case]:
    """Each field in HTTP/1 and in HTTP/2."""
    tables = (("stated", STATED), ("steering", STEERING), ("passing", PASSING))
    forged = [
        {"id": f"{version} {name}", "cls": kind, "field": [name, value], "version": version}
        for kind, table in tables
        for name, value in table.items()
        for version in ("h1", "h2")
    ]
    nominated = [
        {
            "id": f"h1 Connection: {name}",
            "cls": "nominated",
            "field": ["Connection", f"close, {name}"],
            "name": name,
            "version": "h1",
        }
        for name in NOMINATED
    ]
    return forged + nominated


def judge(lane: Lane, case: Case, patience: Patience) -> Verdict:
    """Sends the field; the client may not be believed, and what the proxy says stays."""
    name, value = case["field"]
    if case["version"] == "h1":
        close = "" if name == "Connection" else "connection: close\r\n"
        request = f"GET / HTTP/1.1\r\nhost: lab.test\r\n{close}{name}: {value}\r\n\r\n"
        answer, _ = lane.talk([(request.encode(), 0)], patience)
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    else:
        with Connection(lane.address) as connection:
            connection.send(frames.request(1, "/", (name.lower(), value)))
            status = connection.response(1, patience.first).status or 0
    requests = [it for data in lane.backend.received() for it in strict.read_all(data)[0]]
    if not requests:
        return ("PASS" if 400 <= status < 500 else "STALL"), f"not forwarded: {status}"
    wanted = case.get("name", name).lower().encode()
    values = [it.decode("latin-1") for it in requests[0].values(wanted)]
    summary = f"the backend got {values}"
    if case["cls"] == "nominated":
        return ("PASS" if values else "UNSAFE"), summary
    if case["cls"] == "passing":
        return ("PASS" if values == [value] else "OVERSTRICT"), summary
    last = values[-1].split(",")[-1].strip() if values else None
    return ("UNSAFE" if last == value else "PASS"), summary

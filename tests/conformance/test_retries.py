"""Retries, and time-outs of requests and of attempts."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.conformance.infra import INFRA, Infra, conditions, route
from tests.conformance.suite import conformance
from tests.engine.harness import ok

from kgw.api.duration import milliseconds

if TYPE_CHECKING:
    from tests.engine.harness import Peer

BACKEND = "backendRefs: [{name: infra-backend-v3, port: 8080}]"

#: Different requests at a time are different rows of a table; each has a number of its own.
_uuids = iter(range(1_000_000))


class Flaky:
    """The pod of the suite that fails as often as a request says, and then echoes it.

    `succeedAfter` is the number of attempts that fail, each with `responseCode` or, without one, by
    a reset of the connection. `delayRetry` is the time that each failure takes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.attempts: Counter[str] = Counter()
        # One at a time, as in the suite's: who is late delays those behind.
        self._turn = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while True:
            line, pairs, body = peer.read_request()
            method, target, _ = line.split(" ", 2)
            query = {name: one[0] for name, one in parse_qs(urlsplit(target).query).items()}
            with self._turn:
                fails = self.attempts[query["uuid"]] < int(query["succeedAfter"])
                self.attempts[query["uuid"]] += 1
                if fails and "delayRetry" in query:
                    # What the suite asks of the pod: an answer that comes too late.
                    threading.Event().wait(milliseconds(query["delayRetry"]) / 1000)
            if fails and "responseCode" not in query:
                peer.reset()
                return
            if fails:
                peer.send(ok(b"", status=f"{query['responseCode']} Simulated"))
                continue
            headers = {name.lower(): [value] for name, value in pairs}
            seen = {
                "backend": self.name,
                "namespace": INFRA,
                "method": method,
                "path": target,
                "headers": headers,
                "body": body.decode("latin-1"),
            }
            peer.send(ok(json.dumps(seen).encode(), "content-type: application/json"))


def prepared(infra: Infra, rules: str) -> Infra:
    """The infrastructure with a pod that fails as asked, and a route that is accepted."""
    infra.service("infra-backend-v3", script=Flaky("infra-backend-v3"))
    infra.apply(route(rules, name="retries"))
    parent = infra.parent("HTTPRoute", "retries", name="same-namespace")
    assert conditions(parent)["Accepted"] == ("True", "Accepted")
    assert conditions(parent)["ResolvedRefs"] == ("True", "ResolvedRefs")
    return infra


def ask(infra: Infra, path: str, **simulation: object) -> int:
    """The status of the answer to one request, which the pod is to fail so often."""
    query = urlencode({"uuid": next(_uuids), **simulation})
    reply = infra.request("same-namespace", f"{path}?{query}")
    if reply.status == 200:
        assert reply.backend == "infra-backend-v3"
    return reply.status


@conformance("HTTPRouteRetry")
def test_HTTPRouteRetry(infra: Infra) -> None:
    rules = f"""
    - matches: [{{path: {{type: PathPrefix, value: /retry/code-500-attempts-3}}}}]
      retry: {{codes: [500], attempts: 3}}
      {BACKEND}
    - matches: [{{path: {{type: PathPrefix, value: /retry/code-all-attempts-2}}}}]
      retry: {{codes: [500, 502, 503, 504], attempts: 2}}
      {BACKEND}
    """
    prepared(infra, rules)
    three, two = "/retry/code-500-attempts-3", "/retry/code-all-attempts-2"

    assert ask(infra, three, responseCode=500, succeedAfter=2) == 200
    assert ask(infra, three, responseCode=500, succeedAfter=3) == 200
    assert ask(infra, three, responseCode=500, succeedAfter=4) == 500
    assert ask(infra, three, responseCode=503, succeedAfter=2) == 503
    for code in (500, 502, 503, 504):
        assert ask(infra, two, responseCode=code, succeedAfter=1) == 200
        assert ask(infra, two, responseCode=code, succeedAfter=3) == code


@conformance("HTTPRouteRetryConnectionError")
def test_HTTPRouteRetryConnectionError(infra: Infra) -> None:
    path = "/retry/no-status-code-attempts-3"
    rules = f"""
    - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
      retry: {{attempts: 3}}
      {BACKEND}
    """
    prepared(infra, rules)

    for _ in range(3):
        assert ask(infra, path, succeedAfter=2) == 200
        assert ask(infra, path, succeedAfter=4) in (500, 503)
    # A connection that was kept and fails counts like any other.
    assert ask(infra, path, succeedAfter=0) == 200
    assert ask(infra, path, succeedAfter=4) in (500, 503)


@conformance("HTTPRouteRetryWithTimeouts")
def test_HTTPRouteRetryWithTimeouts(infra: Infra) -> None:
    rules = f"""
    - matches: [{{path: {{type: PathPrefix, value: /retry/backend-request-timeout-200ms}}}}]
      retry: {{attempts: 2}}
      timeouts: {{backendRequest: 200ms}}
      {BACKEND}
    - matches: [{{path: {{type: PathPrefix, value: /retry/request-timeout-200ms}}}}]
      retry: {{codes: [500], attempts: 5}}
      timeouts: {{backendRequest: 200ms, request: 400ms}}
      {BACKEND}
    """
    prepared(infra, rules)
    attempt, whole = "/retry/backend-request-timeout-200ms", "/retry/request-timeout-200ms"

    # Time passes here: the pod is late, not the gateway.
    late = {"responseCode": 500, "delayRetry": "300ms"}
    assert ask(infra, attempt, succeedAfter=2, **late) == 200
    assert ask(infra, attempt, succeedAfter=3, **late) == 504
    assert ask(infra, whole, succeedAfter=1, responseCode=500) == 200
    assert ask(infra, whole, succeedAfter=4, responseCode=500, delayRetry="100ms") == 504


@conformance("HTTPRouteTimeoutRequest")
def test_HTTPRouteTimeoutRequest(infra: Infra) -> None:
    timeouts(infra, "request", "/request-timeout", "/disable-request-timeout")


@conformance("HTTPRouteTimeoutBackendRequest")
def test_HTTPRouteTimeoutBackendRequest(infra: Infra) -> None:
    timeouts(infra, "backendRequest", "/backend-timeout", "/disable-backend-timeout")


def timeouts(infra: Infra, which: str, bounded: str, unbounded: str) -> None:
    rules = f"""
    - matches: [{{path: {{type: PathPrefix, value: {bounded}}}}}]
      backendRefs: [{{name: infra-backend-v1, port: 8080}}]
      timeouts: {{{which}: 500ms}}
    - matches: [{{path: {{type: PathPrefix, value: {unbounded}}}}}]
      backendRefs: [{{name: infra-backend-v1, port: 8080}}]
      timeouts: {{{which}: 0s}}
    """
    infra.apply(route(rules, name="timeouts"))
    parent = infra.parent("HTTPRoute", "timeouts", name="same-namespace")
    assert conditions(parent)["Accepted"] == ("True", "Accepted")
    assert conditions(parent)["ResolvedRefs"] == ("True", "ResolvedRefs")

    assert infra.request("same-namespace", bounded).backend == "infra-backend-v1"
    assert infra.request("same-namespace", f"{bounded}?delay=1s").status == 504
    assert infra.request("same-namespace", f"{unbounded}?delay=1s").backend == "infra-backend-v1"

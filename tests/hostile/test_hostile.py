"""No input makes kgw pass on what two servers could read differently, or keeps it waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import proxy_header_verdict, request_verdict, response_verdict
from .lane import PATIENCE, Case, Verdict, copying_lanes, judge_all, lanes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(150)

DATA = Path(__file__).parent / "data"

ONE_POINT_ZERO = "HTTP/1.0 is answered with 426, as kgateway's Envoy does by default"
ONLY_V2 = "ztunnel sends version 2, and a waypoint takes nothing else"

REFUSED: dict[str, dict[str, str]] = {
    "requests": dict.fromkeys(("v-10", "v-10-ka", "h-10-none"), ONE_POINT_ZERO),
    "responses": {},
    "proxy_headers": {
        **dict.fromkeys(
            ("pp1-tcp4", "pp1-tcp6-worst", "pp1-unknown", "pp1-port0", "pp1-split"), ONLY_V2
        ),
        **dict.fromkeys(
            ("pp2-local", "pp2-local-tcp4"), "LOCAL is a health check, which is for no service"
        ),
        "pp2-unspec-len": "what follows an AF_UNSPEC header must be TLVs, for one is the identity",
    },
}
"""Sound input that is refused, and why. All malformed input is: there is no table of that."""

BAD = ("UNSAFE", "CRASH", "STALL", "LENIENT")


def _cases(name: str) -> list[Case]:
    found: list[Case] = json.loads((DATA / f"{name}.json").read_text())
    return found


def _verdicts(
    name: str,
    judge: Callable[..., Verdict],
    traffic: Callable[[str], dict[str, Any]],
) -> dict[str, Verdict]:
    with lanes(traffic) as found:
        verdicts = judge_all(found, _cases(name), judge)
    assert verdicts.keys() == {case["id"] for case in _cases(name)}
    return verdicts


def _http(table: str) -> dict[str, Any]:
    return {"type": "http", "route_table": table}


def _waypoint(table: str) -> dict[str, Any]:
    return {
        "type": "waypoint",
        "header_timeout_ms": proxy_header_verdict.HEADER_TIMEOUT_MS,
        "destinations": [
            {"address": address, "port": 80, "service": service, "route_table": table}
            for address, service in (("10.4.5.6", "test/lab"), ("2001:db8::2", "test/lab6"))
        ],
    }


def _with(verdicts: dict[str, Verdict], *kinds: str) -> dict[str, Verdict]:
    return {case: verdict for case, verdict in verdicts.items() if verdict[0] in kinds}


def test_requests_are_forwarded_as_they_are_meant_or_refused() -> None:
    verdicts = _verdicts("requests", request_verdict.judge, _http)
    assert not _with(verdicts, *BAD)
    assert _with(verdicts, "OVERSTRICT").keys() == REFUSED["requests"].keys()


def test_answers_are_passed_on_whole_or_visibly_broken() -> None:
    verdicts = _verdicts("responses", response_verdict.judge, _http)
    assert not _with(verdicts, *BAD)
    assert _with(verdicts, "OVERSTRICT").keys() == REFUSED["responses"].keys()


def test_a_proxy_header_never_invents_a_client() -> None:
    verdicts = _verdicts("proxy_headers", proxy_header_verdict.judge, _waypoint)
    assert not _with(verdicts, *BAD)
    assert _with(verdicts, "OVERSTRICT").keys() == REFUSED["proxy_headers"].keys()


def test_the_judge_finds_fault_with_a_proxy_that_copies_bytes() -> None:
    """The negative control: without a parser, most malformed requests arrive as they are."""
    malformed = [case for case in _cases("requests") if case["level"] == "must_reject"][::4]
    with copying_lanes() as found:
        verdicts = judge_all(found, malformed, request_verdict.judge, PATIENCE[:1])
    assert len(_with(verdicts, "UNSAFE")) > len(malformed) // 2

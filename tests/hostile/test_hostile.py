"""No input makes kgw pass on what two servers could read differently, or keeps it waiting."""

from __future__ import annotations

import pytest

from . import corpus
from .lane import PATIENCE, Verdict, copying_lanes, judge_all, lanes

pytestmark = pytest.mark.timeout(150)

ONE_POINT_ZERO = "HTTP/1.0 is answered with 426, as kgateway's Envoy does by default"
ONLY_V2 = "ztunnel sends version 2, and a waypoint takes nothing else"
UNKNOWN_METHOD = "a method must be registered or known to Envoy, which takes no others either"

NOT_FOR_A_SERVICE = {
    **dict.fromkeys(
        ("pp2-local", "pp2-local-tcp4"), "LOCAL is a health check, which is for no service"
    ),
    "pp2-unspec-len": "what follows an AF_UNSPEC header must be TLVs, for one is the identity",
}

REFUSED: dict[str, dict[str, str]] = {
    "requests": dict.fromkeys(("v-10", "v-10-ka", "h-10-none"), ONE_POINT_ZERO),
    "old_requests": {},
    "sweep": {
        f"{place}-{ord(character):02x}": UNKNOWN_METHOD
        for place in ("method", "before-method")
        for character in "#$%'*+-.5^_`a|~"
    },
    "h2_requests": {},
    "responses": {},
    "proxy_headers": {
        **dict.fromkeys(
            ("pp1-tcp4", "pp1-tcp6-worst", "pp1-unknown", "pp1-port0", "pp1-split"), ONLY_V2
        ),
        **NOT_FOR_A_SERVICE,
    },
    "both_proxy_headers": {
        **dict.fromkeys(
            ("pp1-unknown", "pp1-tcp6-worst"), "the header names no address of a service"
        ),
        **NOT_FOR_A_SERVICE,
    },
    "paths": {},
    "fields": {},
}
"""Sound input that is refused, and why. All malformed input is: there is no table of that."""

EXPOSED: dict[str, str] = {
    **dict.fromkeys(
        ("escaped-slash-first", "escaped-slash-inside"),
        "an escaped slash is no separator, unless the listener's `escaped_slashes` makes it one",
    ),
    **dict.fromkeys(
        ("escaped-twice", "dots-escaped-twice", "slashes-escaped-twice"),
        "what is escaped twice means what is escaped once",
    ),
    **dict.fromkeys(("parameter", "parameter-value"), "a parameter is a part of its segment"),
    **dict.fromkeys(("upper", "capital"), "paths differ by the case of their letters"),
    **dict.fromkeys(
        ("space", "space-after", "tab", "line-feed"), "an escaped blank is not the same as none"
    ),
}
"""What gets past a deny rule to a server that reads more into it than RFC 3986 does, and why."""


def _verdicts(suite: corpus.Suite) -> dict[str, Verdict]:
    with lanes(suite.listener, denied=suite.denied) as found:
        verdicts = judge_all(found, suite.cases(), suite.judge)
    assert verdicts.keys() == {case["id"] for case in suite.cases()}
    return verdicts


def _with(verdicts: dict[str, Verdict], *kinds: str) -> dict[str, Verdict]:
    return {case: verdict for case, verdict in verdicts.items() if verdict[0] in kinds}


@pytest.mark.parametrize("suite", corpus.SUITES, ids=lambda suite: suite.name)
def test_input_is_passed_on_as_it_is_meant_or_refused(suite: corpus.Suite) -> None:
    verdicts = _verdicts(suite)
    assert not _with(verdicts, "UNSAFE", "CRASH", "STALL", "LENIENT")
    assert _with(verdicts, "OVERSTRICT").keys() == REFUSED[suite.name].keys()
    exposed = {case.partition(" ")[2] for case in _with(verdicts, "EXPOSED")}
    assert exposed == (EXPOSED.keys() if suite is corpus.PATHS else set())


def test_the_judge_finds_fault_with_a_proxy_that_copies_bytes() -> None:
    """The negative control: without a parser, most malformed requests arrive as they are."""
    malformed = [case for case in corpus.REQUESTS.cases() if case["level"] == "must_reject"][::4]
    with copying_lanes() as found:
        verdicts = judge_all(found, malformed, corpus.REQUESTS.judge, PATIENCE[:1])
    assert len(_with(verdicts, "UNSAFE")) > len(malformed) // 2


def test_the_judge_finds_what_gets_past_a_rule_that_nothing_enforces() -> None:
    """The negative control of the paths: without the rule, every spelling arrives."""
    equal = [case for case in corpus.PATHS.cases() if case["cls"] == "equal"]
    with lanes() as found:
        verdicts = judge_all(found, equal, corpus.PATHS.judge, PATIENCE[:1])
    assert len(_with(verdicts, "UNSAFE")) == len(equal)


def test_the_judge_finds_forged_fields_that_are_believed() -> None:
    """The negative control of the fields: an inner proxy believes the one in front of it."""
    suite = corpus.FIELDS
    with lanes(lambda _: {"http": {"use_remote_address": False}}) as found:
        verdicts = judge_all(found, suite.cases(), suite.judge, PATIENCE[:1])
    assert verdicts["h1 X-Forwarded-For"][0] == "UNSAFE"
    assert verdicts["h1 X-Request-Id"][0] == "UNSAFE"

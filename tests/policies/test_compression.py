"""TrafficPolicy `compression`: answers are compressed, requests decompressed."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.policies.manifests import BASE, policy

import kgw

if TYPE_CHECKING:
    from kgw.testing import GatewayFactory

pytestmark = pytest.mark.fields("TrafficPolicy.spec.compression")

TEXT = json.dumps({"some": "text"}).encode() * 100
JSON = {"content-type": "application/json"}
RESPONSES: dict[str, Any] = {"compression": {"responseCompression": {}}}
REQUESTS: dict[str, Any] = {"compression": {"requestDecompression": {}}}


def test_answers_are_compressed_for_clients_that_take_it(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(RESPONSES)])
    gateway.backend("api").responds(200, body=TEXT, headers={**JSON, "etag": '"1"'})
    answer = gateway.get("/", headers={"accept-encoding": "gzip"}).expect(status=200)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "etag" not in answer.headers
    assert "content-length" not in answer.headers
    assert gzip.decompress(answer.body) == TEXT
    assert len(answer.body) < len(TEXT) / 10
    plain = gateway.get("/").expect(status=200)
    assert plain.body == TEXT
    assert plain.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-length"] == str(len(TEXT))


@pytest.mark.parametrize(
    ("libraries", "accept", "coding"),
    [
        (["Gzip"], "br", None),
        (["Brotli", "Gzip"], "gzip, br", "br"),
        (["Gzip", "Zstd"], "zstd;q=1, gzip;q=0.9", "zstd"),
        (["Zstd"], "*", "zstd"),
    ],
)
def test_the_coding_is_one_that_both_want(
    kgw_proxy: GatewayFactory, libraries: list[str], accept: str, coding: str | None
) -> None:
    spec = {"compression": {"responseCompression": {"libraries": libraries}}}
    gateway = kgw_proxy([BASE, policy(spec)])
    gateway.backend("api").responds(200, body=TEXT, headers=JSON)
    answer = gateway.get("/", headers={"accept-encoding": accept}).expect(status=200)
    assert answer.headers.all("content-encoding") == ([] if coding is None else [coding])


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "image/png"},
        {**JSON, "content-encoding": "br"},
        {**JSON, "cache-control": "no-transform"},
    ],
)
def test_other_answers_are_left_alone(kgw_proxy: GatewayFactory, headers: dict[str, str]) -> None:
    gateway = kgw_proxy([BASE, policy(RESPONSES)])
    gateway.backend("api").responds(200, body=TEXT, headers=headers)
    answer = gateway.get("/", headers={"accept-encoding": "gzip"}).expect(status=200)
    assert answer.body == TEXT


def test_the_answer_to_head_has_no_body(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(RESPONSES)])
    gateway.backend("api").responds(200, body=TEXT, headers=JSON)
    answer = gateway.head("/", headers={"accept-encoding": "gzip"}).expect(status=200)
    assert answer.body == b""


def test_requests_are_decompressed(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(REQUESTS)])
    headers = {**JSON, "content-encoding": "gzip"}
    answer = gateway.post("/", body=gzip.compress(TEXT), headers=headers).expect(status=200)
    assert answer.received is not None
    assert answer.received.body == TEXT
    assert "content-encoding" not in answer.received.headers
    other = gateway.post("/", body=b"x", headers={"content-encoding": "br"}).expect(status=200)
    assert other.received is not None
    assert (other.received.body, other.received.headers["content-encoding"]) == (b"x", "br")


def test_what_cannot_be_decompressed_is_answered_400(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(REQUESTS)])
    answer = gateway.post("/", body=b"no gzip at all", headers={"content-encoding": "gzip"})
    answer.expect(status=400, details="request_decompression_failed")


def test_a_bomb_is_answered_413(kgw_proxy: GatewayFactory) -> None:
    gateway = kgw_proxy([BASE, policy(REQUESTS)])
    bomb = gzip.compress(bytes(32 << 20))
    answer = gateway.post("/", body=bomb, headers={"content-encoding": "gzip"})
    answer.expect(status=413)


def test_it_is_turned_off_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    off: dict[str, Any] = {"compression": {"responseCompression": {"disable": {}}}}
    gateway = kgw_proxy([BASE, policy(RESPONSES), policy(off, "off", section="api")])
    gateway.backend("api").responds(200, body=TEXT, headers=JSON)
    plain = gateway.get("/api", headers={"accept-encoding": "gzip"})
    coded = gateway.get("/", headers={"accept-encoding": "gzip"})
    assert plain.body == TEXT
    assert coded.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {},
            "at least one of the fields in [responseCompression requestDecompression] must be set",
        ),
        (
            {"responseCompression": {"libraries": ["Gzip", "Gzip"]}},
            "libraries must not contain duplicates",
        ),
    ],
)
def test_what_the_crd_refuses_is_refused(spec: dict[str, Any], message: str) -> None:
    config = kgw.Config.from_objects([policy({"compression": spec})])
    assert any(message in one.message for one in config.findings)


def test_requests_are_left_alone_where_a_rule_says_so(kgw_proxy: GatewayFactory) -> None:
    off: dict[str, Any] = {"compression": {"requestDecompression": {"disable": {}}}}
    everywhere = policy(REQUESTS, kind="Gateway", target="edge")
    gateway = kgw_proxy([BASE, everywhere, policy(off, "off", section="api")])
    body, headers = gzip.compress(TEXT), {"content-encoding": "gzip"}
    for url, received in (("/", TEXT), ("/api", body)):
        answer = gateway.post(url, body=body, headers=headers).expect(status=200)
        assert answer.received is not None
        assert answer.received.body == received


def test_requests_are_decompressed_from_the_named_formats_only(kgw_proxy: GatewayFactory) -> None:
    brotli = {"compression": {"requestDecompression": {"libraries": ["Brotli"]}}}
    gateway = kgw_proxy([BASE, policy(brotli)])
    body = gzip.compress(TEXT)
    answer = gateway.post("/", body=body, headers={"content-encoding": "gzip"})
    assert answer.expect(status=200).received is not None
    assert answer.received is not None
    assert answer.received.body == body

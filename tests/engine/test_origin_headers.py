"""What the proxy states about a request's origin, and itself."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from tests.engine.harness import Setup, always, get, ok, serving

if TYPE_CHECKING:
    from pathlib import Path


def fields_of(gateway_body: bytes) -> dict[str, str]:
    return {name.lower(): value for name, value in json.loads(gateway_body)["headers"]}


def test_the_request_id_is_fresh_and_logged(tmp_path: Path) -> None:
    setup = Setup(log={"id": "%REQ(X-REQUEST-ID)%"}, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(get("/", "x-request-id: mine") + get("/", "X-Request-Id: mine"))
        ids = [fields_of(client.read_response().body)["x-request-id"] for _ in range(2)]
        assert [line["id"] for line in gateway.log_lines(2)] == ids
    assert len(set(ids)) == 2
    assert all(uuid.UUID(each).version == 4 for each in ids)


def test_a_forged_request_id_is_gone() -> None:
    with serving() as (gateway, _):
        body = gateway.get("/", "X-Request-Id: mine", "x-request-id: other").body
        ids = [v for n, v in json.loads(body)["headers"] if n.lower() == "x-request-id"]
        assert len(ids) == 1
        assert ids[0] not in ("mine", "other")


def test_the_client_is_appended_to_those_it_forwarded_for() -> None:
    with serving() as (gateway, _):
        request = get("/", "x-forwarded-for: 1.1.1.1", "X-Forwarded-For: 2.2.2.2")
        headers = json.loads(gateway.ask(request).body)["headers"]
        chains = [value for name, value in headers if name.lower() == "x-forwarded-for"]
        assert chains == ["1.1.1.1,2.2.2.2,127.0.0.1"]


def test_scheme_and_address_are_stated() -> None:
    with serving() as (gateway, _):
        request = get("/", "x-forwarded-proto: https", "x-envoy-external-address: 9.9.9.9")
        fields = fields_of(gateway.ask(request).body)
        assert fields["x-forwarded-proto"] == "http"
        assert fields["x-envoy-external-address"] == "127.0.0.1"


def test_controls_of_the_proxy_are_not_taken_from_clients() -> None:
    with serving() as (gateway, _):
        request = get(
            "/",
            "x-envoy-max-retries: 9",
            "X-Envoy-Upstream-Rq-Timeout-Ms: 1",
            "x-envoy-expected-rq-timeout-ms: 1",
            "x-envoy-internal: true",
            "x-envoy-foo: kept",
        )
        fields = fields_of(gateway.ask(request).body)
        assert "x-envoy-max-retries" not in fields
        assert "x-envoy-upstream-rq-timeout-ms" not in fields
        assert "x-envoy-internal" not in fields
        assert fields["x-envoy-expected-rq-timeout-ms"] == "15000"
        assert fields["x-envoy-foo"] == "kept"


def test_an_inner_proxy_believes_what_it_is_told() -> None:
    setup = Setup(http={"use_remote_address": False})
    with serving(setup) as (gateway, _):
        request = get(
            "/", "x-request-id: mine", "x-forwarded-proto: https", "x-forwarded-for: 1.1.1.1"
        )
        fields = fields_of(gateway.ask(request).body)
        assert fields["x-request-id"] == "mine"
        assert fields["x-forwarded-proto"] == "https"
        assert fields["x-forwarded-for"] == "1.1.1.1"
        fields = fields_of(gateway.get().body)
        assert uuid.UUID(fields["x-request-id"]).version == 4
        assert "x-forwarded-for" not in fields


def test_the_server_names_itself() -> None:
    answer = ok(b"ok", "Server: backend", "x-last: 1")
    with serving(script=always(answer)) as (gateway, _):
        response = gateway.get()
        assert [v for n, v in response.headers if n.lower() == "server"] == ["kgw"]
    with serving(Setup(http={"server_name": "envoy"})) as (gateway, _):
        assert gateway.get()["server"] == "envoy"
    with serving(Setup(http={"server_name": "envoy"}, rules=[])) as (gateway, _):
        assert gateway.ask(b"nonsense\r\n\r\n")["server"] == "envoy"


def test_an_upstreams_date_is_kept_and_a_missing_one_added() -> None:
    with serving(script=always(ok(b"ok", "date: Thu, 01 Jan 1970 00:00:00 GMT"))) as (gateway, _):
        dates = [v for n, v in gateway.get().headers if n.lower() == "date"]
        assert dates == ["Thu, 01 Jan 1970 00:00:00 GMT"]
    with serving() as (gateway, _):
        assert gateway.get()["date"].endswith(" GMT")


def test_the_upstreams_time_is_stated_in_milliseconds() -> None:
    with serving(script=None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        peer.read_request()
        gateway.advance(1.234)
        peer.send(ok(b"ok", "x-envoy-upstream-service-time: 99999"))
        response = client.read_response()
        times = [v for n, v in response.headers if n.lower() == "x-envoy-upstream-service-time"]
        assert times == ["1234"]


def test_the_reason_phrase_is_the_canonical_one() -> None:
    with serving(script=always(ok(status="200 Very Fine"))) as (gateway, _):
        assert gateway.get().raw_head.startswith(b"HTTP/1.1 200 OK\r\n")

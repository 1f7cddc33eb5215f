"""Fields that concern one connection end at the proxy; the others keep order, case and lines."""

from __future__ import annotations

import json

import pytest
from tests.engine.harness import Setup, always, forward, get, ok, post, serving


def seen_by_upstream(*fields: str) -> list[tuple[str, str]]:
    with serving() as (gateway, _):
        seen = json.loads(gateway.get("/", *fields).body)
        return [(name, value) for name, value in seen["headers"]]


@pytest.mark.parametrize(
    "name",
    ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Trailer"],
)
def test_a_request_field_of_the_hop_is_not_passed_on(name: str) -> None:
    names = [field.lower() for field, _ in seen_by_upstream(f"{name}: x", "x-stays: 1")]
    assert name.lower() not in names
    assert "x-stays" in names


def test_fields_named_in_connection_are_not_passed_on() -> None:
    fields = seen_by_upstream("X-Foo: 1", "connection: x-foo, X-BAR", "x-bar: 2", "x-baz: 3")
    names = [name.lower() for name, _ in fields]
    assert "connection" not in names
    assert "x-foo" not in names
    assert "x-bar" not in names
    assert "x-baz" in names


@pytest.mark.parametrize("name", ["authorization", "x-forwarded-for", "host", "cookie"])
def test_a_client_cannot_have_fields_of_consequence_removed(name: str) -> None:
    with serving() as (gateway, _):
        response = gateway.get("/", f"connection: {name}", "authorization: secret")
        assert response.status == 400 or name == "host"
        if response.status == 200:
            assert dict(json.loads(response.body)["headers"])["host"] == "ollama"


def test_te_is_passed_on_for_trailers_only() -> None:
    assert dict(seen_by_upstream("te: gzip, trailers"))["te"] == "trailers"
    assert "te" not in [name.lower() for name, _ in seen_by_upstream("te: gzip")]


def test_an_offer_of_http2_is_not_taken_up() -> None:
    fields = seen_by_upstream(
        "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"
    )
    names = [name.lower() for name, _ in fields]
    assert not {"upgrade", "connection", "http2-settings"} & set(names)


def test_a_response_field_of_the_hop_is_not_passed_on() -> None:
    answer = ok(
        b"ok",
        "connection: keep-alive, x-hop",
        "keep-alive: timeout=5",
        "x-hop: 1",
        "proxy-connection: keep-alive",
        "te: x",
        "upgrade: h2c",
        "trailer: x",
        "x-stays: 1",
    )
    with serving(script=always(answer)) as (gateway, _):
        names = gateway.get().names()
    assert not {
        "connection",
        "keep-alive",
        "x-hop",
        "proxy-connection",
        "te",
        "upgrade",
        "trailer",
    } & set(names)
    assert "x-stays" in names


def test_an_upstreams_wish_to_close_is_between_it_and_the_proxy() -> None:
    with serving(script=always(ok(b"ok", "connection: close"))) as (gateway, upstream):
        client = gateway.connect()
        for count in (1, 2):
            client.send(get())
            response = client.read_response()
            assert response.get("connection") is None
            assert upstream.connections == count


def test_fields_keep_their_order_their_case_and_their_lines() -> None:
    fields = seen_by_upstream("X-B: 1", "x-A: 2", "X-b: 3", "Set-Thing: a", "set-thing: b")
    wanted = {"x-a", "x-b", "set-thing"}
    kept = [field for field in fields if field[0].lower() in wanted]
    assert kept == [
        ("X-B", "1"),
        ("x-A", "2"),
        ("X-b", "3"),
        ("Set-Thing", "a"),
        ("set-thing", "b"),
    ]


def test_response_fields_keep_their_order_their_case_and_their_lines() -> None:
    answer = ok(b"ok", "X-B: 1", "Set-Cookie: a=1", "x-A: 2", "Set-Cookie: b=2")
    with serving(script=always(answer)) as (gateway, _):
        headers = gateway.get().headers
    assert headers[:4] == [("X-B", "1"), ("Set-Cookie", "a=1"), ("x-A", "2"), ("Set-Cookie", "b=2")]


@pytest.mark.parametrize("protocol", ["websocket", "foo/2"])
def test_a_protocol_switch_is_refused(protocol: str) -> None:
    with serving() as (gateway, upstream):
        client = gateway.connect()
        client.send(get("/", "connection: upgrade", f"upgrade: {protocol}"))
        response = client.read_response()
        assert (response.status, response.body, response["connection"]) == (403, b"", "close")
        assert client.is_closed()
        assert upstream.connections == 0


def test_a_request_with_a_body_switches_no_protocol() -> None:
    action = forward("c", upgrades=["websocket"])
    setup = Setup(routes={"default": {"name": "default", "action": action}})
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(post(b"body", "connection: upgrade", "upgrade: websocket") + get("/next"))
        seen = json.loads(client.read_response().body)
        assert seen["body"] == "body"
        assert not {"upgrade", "connection"} & {name.lower() for name, _ in seen["headers"]}
        assert json.loads(client.read_response().body)["line"] == "GET /next HTTP/1.1"

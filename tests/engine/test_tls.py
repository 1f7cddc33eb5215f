"""TLS on either side of the gateway, as the ``ssl`` module sees it."""

from __future__ import annotations

import contextlib
import json
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.engine.harness import (
    Gateway,
    Peer,
    Response,
    Script,
    Setup,
    always,
    echo,
    eventually,
    forward,
    get,
    ok,
    rule,
    serving,
    tcp_forward,
)

if TYPE_CHECKING:
    from pathlib import Path

LOG = {
    "version": "%DOWNSTREAM_TLS_VERSION%",
    "cipher": "%DOWNSTREAM_TLS_CIPHER%",
    "name": "%REQUESTED_SERVER_NAME%",
    "chain": "%FILTER_CHAIN_NAME%",
    "emails": "%DOWNSTREAM_PEER_EMAIL_SAN%",
    "subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "fingerprint": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "until": "%DOWNSTREAM_PEER_CERT_V_END(%Y)%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "up_version": "%UPSTREAM_TLS_VERSION%",
    "up_name": "%UPSTREAM_SERVER_NAME%",
    "up_names": "%UPSTREAM_PEER_DNS_SAN%",
}


@cache
def authority(name: str = "gateway") -> trustme.CA:
    """A certificate authority, the same for the same name."""
    return trustme.CA(organization_name=name)


def pem(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


def ir_of(leaf: trustme.LeafCert) -> dict[str, str]:
    chain = b"".join(one.bytes() for one in leaf.cert_chain_pems)
    return {"chain": chain.decode(), "key": leaf.private_key_pem.bytes().decode()}


@cache
def certificate(*names: str) -> dict[str, str]:
    """A certificate for names, as the IR has it."""
    return ir_of(authority().issue_cert(*names))


def server(*names: str, **more: Any) -> dict[str, Any]:
    """The server's side of TLS with one certificate."""
    return {"certificates": [certificate(*names)]} | more


def http_chain(*names: str, table: str = "t", tls: dict[str, Any] | None = None) -> dict[str, Any]:
    action = {"type": "http", "tls": tls or server(names[0]), "route_table": table}
    return {"name": f"chain-{names[0]}", "server_names": list(names), "action": action}


def tls(*chains: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "tls", "chains": list(chains)} | more


def trusting(ca: trustme.CA | None = None, *protocols: str) -> ssl.SSLContext:
    """A client's context that trusts one authority."""
    context = ssl.create_default_context()
    (ca or authority()).configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def secure(gateway: Gateway, name: str, context: ssl.SSLContext | None = None) -> Peer:
    """A client after its handshake."""
    client = gateway.connect()
    context = context or trusting()
    # Should the handshake fail, the socket is closed with it.
    client.sock = context.wrap_socket(client.sock, server_hostname=name)
    return client


def ask(gateway: Gateway, context: ssl.SSLContext) -> Response:
    client = secure(gateway, "a.example", context)
    client.send(get())
    return client.read_response()


def peer_names(client: Peer) -> list[str]:
    """The DNS names in the certificate that the gateway showed."""
    assert isinstance(client.sock, ssl.SSLSocket)
    found: Any = client.sock.getpeercert()
    return [value for kind, value in found["subjectAltName"] if kind == "DNS"]


def behind_tls(
    script: Script, *names: str, protocols: tuple[str, ...] = (), ca: trustme.CA | None = None
) -> Script:
    """A script behind a TLS server's handshake."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(*(names or ("backend.example",))).configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if ca is not None:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    def secured(peer: Peer) -> None:
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        script(peer)

    return secured


def cluster(address: str, **more: Any) -> dict[str, Any]:
    """A cluster whose endpoint speaks TLS and is trusted."""
    trust = {"type": "ca", "value": pem(authority())}
    return {"endpoints": [address], "tls": {"sni": "backend.example", "trust": trust} | more}


def logged(tmp_path: Path, **more: Any) -> Setup:
    return Setup(log=LOG, log_path=str(tmp_path / "log"), **more)


# === The clients' side ===


def test_the_server_name_chooses_certificate_and_routes(tmp_path: Path) -> None:
    setup = logged(tmp_path, traffic=tls(http_chain("a.example"), http_chain("*.b.example", "*")))
    with serving(setup) as (gateway, _):
        for name, names in [("a.example", ["a.example"]), ("x.b.example", ["*.b.example"])]:
            client = secure(gateway, name, trusting(None, "http/1.1"))
            assert peer_names(client) == names
            client.send(get(host=name))
            fields = dict(json.loads(client.read_response().body)["headers"])
            assert fields["x-forwarded-proto"] == "https"
            client.close()
        first, second = gateway.log_lines(2)
        assert first["version"] == "TLSv1.3"
        assert first["cipher"] == "TLS_AES_256_GCM_SHA384"
        assert (first["name"], first["chain"]) == ("a.example", "chain-a.example")
        assert (second["name"], second["chain"]) == ("x.b.example", "chain-*.b.example")
        assert first["emails"] is first["subject"] is first["fingerprint"] is None
        gateway.reaches("downstream_tls_handshake", 2)


def test_a_name_that_nobody_serves_is_closed_without_a_word() -> None:
    with serving(Setup(traffic=tls(http_chain("a.example")))) as (gateway, _):
        with pytest.raises(ssl.SSLEOFError):
            secure(gateway, "b.example")
        gateway.reaches("downstream_tls_no_chain", 1)
        assert gateway.stat("downstream_tls_fail") == 0


def test_what_is_no_tls_is_closed() -> None:
    with serving(Setup(traffic=tls(http_chain("a.example")))) as (gateway, _):
        client = gateway.connect()
        client.send(get())
        assert client.read_to_end().startswith(b"\x15\x03\x03\x00\x02\x02")
        gateway.reaches("downstream_tls_fail", 1)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02"])
def test_a_handshake_has_its_time(sent: bytes) -> None:
    traffic = tls(http_chain("a.example"), handshake_timeout_ms=3_000)
    with serving(Setup(traffic=traffic)) as (gateway, _):
        client = gateway.connect()
        client.send(sent)
        gateway.advance(2.9)
        assert not client.is_readable()
        gateway.advance(0.2)
        assert client.is_closed()
        gateway.reaches("downstream_tls_timeout", 1)


def test_a_chain_that_cannot_work_takes_no_other_down() -> None:
    broken = {"certificates": [certificate("a.example") | {"key": "no key"}]}
    traffic = tls(http_chain("a.example", tls=broken), http_chain("b.example"))
    with serving(Setup(traffic=traffic)) as (gateway, _):
        with pytest.raises(ssl.SSLError) as refused:
            secure(gateway, "a.example")
        assert refused.value.reason == "TLSV1_ALERT_INTERNAL_ERROR"
        client = secure(gateway, "b.example", trusting(None, "http/1.1"))
        client.send(get())
        assert client.read_response().status == 200
        (problem,) = gateway.engine.problems()
        assert "chain-a.example" in problem
        assert "no key" not in problem


def test_a_new_certificate_is_for_new_connections() -> None:
    setup = Setup(traffic=tls(http_chain("a.example")))
    with serving(setup) as (gateway, _):
        old = secure(gateway, "a.example", trusting(None, "http/1.1"))
        renewed = server("a.example", "renewed.example")
        setup.traffic = tls(http_chain("a.example", tls=renewed))
        gateway.apply(setup)
        old.send(get())
        assert old.read_response().status == 200
        new = secure(gateway, "a.example", trusting(None, "http/1.1"))
        assert peer_names(new) == ["a.example", "renewed.example"]
        assert peer_names(old) == ["a.example"]


def client_chain(mode: str) -> dict[str, Any]:
    validation = {"ca": pem(authority("clients")), "mode": mode}
    return http_chain("a.example", tls=server("a.example", client_validation=validation))


@pytest.mark.parametrize("mode", ["require", "optional", "insecure_fallback"])
def test_a_clients_certificate_is_in_the_log(mode: str, tmp_path: Path) -> None:
    setup = logged(tmp_path, traffic=tls(client_chain(mode)))
    with serving(setup) as (gateway, _):
        context = trusting(None, "http/1.1")
        authority("clients").issue_cert("me@client.example").configure_cert(context)
        client = secure(gateway, "a.example", context)
        client.send(get())
        assert client.read_response().status == 200
        (line,) = gateway.log_lines(1)
        assert line["emails"] == "me@client.example"
        assert len(line["fingerprint"]) == 64
        assert int(line["until"]) >= 2026
        assert "O=trustme" in line["subject"]


@pytest.mark.parametrize("issuer", [None, "strangers"])
@pytest.mark.parametrize("mode", ["require", "optional", "insecure_fallback"])
def test_a_client_without_a_good_certificate(mode: str, issuer: str | None) -> None:
    accepted = mode == "insecure_fallback" or (mode == "optional" and issuer is None)
    with serving(Setup(traffic=tls(client_chain(mode)))) as (gateway, upstream):
        context = trusting(None, "http/1.1")
        if issuer is not None:
            authority(issuer).issue_cert("me@client.example").configure_cert(context)
        if accepted:
            assert ask(gateway, context).status == 200
            return
        # A client of TLS 1.3 is done before the server has looked at its certificate, and what it
        # sends meanwhile may make the kernel drop the alert.
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            ask(gateway, context)
        eventually(lambda: gateway.stat("downstream_tls_fail") == 1)
        assert upstream.connections == 0


def test_the_inside_may_be_bytes(tmp_path: Path) -> None:
    action = {"type": "tcp", "tls": server("a.example"), "forward": tcp_forward("c")}
    chain = {"name": "bytes", "server_names": ["a.example"], "action": action}
    setup = logged(tmp_path, traffic=tls(chain))
    with serving(setup, None) as (gateway, upstream):
        client = secure(gateway, "a.example")
        client.send(b"\x00question")
        up = upstream.accept()
        assert up.read_exactly(9) == b"\x00question"
        up.send(b"\xffanswer")
        up.close()
        assert client.read_exactly(7) == b"\xffanswer"
        assert client.is_closed()
        client.close()
        (line,) = gateway.log_lines(1)
        assert (line["name"], line["chain"], line["version"]) == ("a.example", "bytes", "TLSv1.3")


def test_tls_is_passed_on_untouched(tmp_path: Path) -> None:
    action = {"type": "passthrough", "forward": tcp_forward("c")}
    chain = {"name": "through", "server_names": ["*.example"], "action": action}
    setup = logged(tmp_path, traffic=tls(chain))
    with serving(setup, behind_tls(echo, "own.example")) as (gateway, _):
        client = secure(gateway, "own.example")
        assert peer_names(client) == ["own.example"]
        client.send(get())
        assert client.read_response().status == 200
        client.close()
        (line,) = gateway.log_lines(1)
        assert (line["name"], line["chain"]) == ("own.example", "through")
        assert line["version"] is None
        assert gateway.stat("downstream_tls_handshake") == 0


def test_a_proxy_header_comes_before_the_handshake() -> None:
    setup = Setup(
        traffic=tls(http_chain("a.example")),
        listener={"proxy_protocol": {"accept_v1": True}},
    )
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        context = trusting(None, "http/1.1")
        client.sock = context.wrap_socket(client.sock, server_hostname="a.example")
        client.send(get())
        assert b"192.0.2.1" in client.read_response().body


# === The endpoints' side ===


def test_an_endpoint_is_asked_over_tls_and_its_connection_used_again(tmp_path: Path) -> None:
    with serving(logged(tmp_path), behind_tls(echo)) as (gateway, upstream):
        gateway.setup.clusters = {"c": cluster(upstream.address)}
        gateway.apply(gateway.setup)
        client = gateway.connect()
        for _ in range(3):
            client.send(get())
            assert client.read_response().status == 200
        assert upstream.connections == 1
        gateway.reaches("upstream_tls_handshake", 1)
        eventually(lambda: gateway.stat("upstream_rq_reused") == 2, "two requests on it")
        for line in gateway.log_lines(3):
            assert line["up_version"] == "TLSv1.3"
            assert line["up_name"] == line["up_names"] == "backend.example"


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_an_endpoint_that_may_speak_either_is_asked(protocols: tuple[str, ...]) -> None:
    script = behind_tls(echo, protocols=protocols)
    with serving(script=script) as (gateway, upstream):
        gateway.setup.clusters = {"c": cluster(upstream.address) | {"protocol": "auto"}}
        gateway.apply(gateway.setup)
        client = gateway.connect()
        for _ in range(2):
            client.send(get())
            assert client.read_response().status == 200
        assert upstream.connections == 1


def test_an_endpoint_that_is_not_trusted_gets_no_request(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        asked.append(peer.read_until(b"\r\n\r\n"))

    with serving(logged(tmp_path), behind_tls(script)) as (gateway, upstream):
        strangers = {"type": "ca", "value": pem(authority("strangers"))}
        wrong_name = [{"type": "dns", "value": "other.example"}]
        for more in ({"trust": strangers}, {"subject_alt_names": wrong_name}):
            gateway.setup.clusters = {"c": cluster(upstream.address, **more)}
            gateway.apply(gateway.setup)
            response = gateway.get()
            assert response.status == 503
            assert response.body.endswith(b"reset reason: remote connection failure")
        unknown, misnamed = gateway.log_lines(2)
        assert unknown["flags"] == misnamed["flags"] == "UF"
        assert unknown["failure"] == "TLS_error:|invalid_peer_certificate:_UnknownIssuer"
        assert misnamed["failure"] == "TLS_error:|invalid_peer_certificate:_NotValidForName"
        reset = "upstream_reset_before_response_started{remote_connection_failure|"
        assert unknown["details"] == reset + unknown["failure"] + "}"
        gateway.reaches("upstream_tls_fail", 2)
        assert not asked


def test_what_is_meant_for_tls_is_never_sent_without_it() -> None:
    with serving() as (gateway, upstream):
        broken = {"sni": "a.example", "trust": {"type": "ca", "value": "none"}}
        gateway.setup.clusters = {"c": {"endpoints": [upstream.address], "tls": broken}}
        gateway.apply(gateway.setup)
        assert gateway.get().status == 503
        assert upstream.connections == 0
        (problem,) = gateway.engine.problems()
        assert problem.startswith("cluster c: TLS: ")


def test_plain_connections_are_not_used_for_tls() -> None:
    with serving() as (gateway, upstream):
        assert gateway.get().status == 200
        gateway.setup.clusters = {"c": cluster(upstream.address)}
        gateway.apply(gateway.setup)
        # The endpoint takes the hello for a request, which it never ends.
        client = gateway.connect()
        client.send(get())
        eventually(lambda: upstream.connections == 2)
        gateway.advance(5.1)
        assert client.read_response().status == 503


def test_the_gateway_shows_its_certificate(tmp_path: Path) -> None:
    script = behind_tls(always(ok()), ca=authority("gateways"))
    with serving(logged(tmp_path), script) as (gateway, upstream):
        own = ir_of(authority("gateways").issue_cert("gateway.example"))
        gateway.setup.clusters = {"c": cluster(upstream.address, certificate=own)}
        gateway.apply(gateway.setup)
        assert gateway.get().status == 200


def test_an_answer_that_is_cut_short_is_not_passed_off_as_whole() -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of")
        # FIN, and no word of TLS that this is the end.

    def end(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        assert isinstance(peer.sock, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            peer.sock.unwrap()

    for script, whole in ((cut, False), (end, True)):
        with serving(script=behind_tls(script)) as (gateway, upstream):
            gateway.setup.clusters = {"c": cluster(upstream.address)}
            gateway.apply(gateway.setup)
            client = gateway.connect()
            client.send(get())
            if whole:
                assert client.read_response().body == b"all of it"
            else:
                with pytest.raises((EOFError, ConnectionError)):
                    client.read_response()


def test_bytes_are_passed_on_over_tls() -> None:
    def script(peer: Peer) -> None:
        peer.send(peer.read_exactly(8).upper())

    traffic = {"type": "tcp", "forward": tcp_forward("c")}
    with serving(Setup(traffic=traffic), behind_tls(script)) as (gateway, upstream):
        gateway.setup.clusters = {"c": cluster(upstream.address)}
        gateway.apply(gateway.setup)
        client = gateway.connect()
        client.send(b"question")
        assert client.read_exactly(8) == b"QUESTION"


def test_both_sides_at_once() -> None:
    setup = Setup(
        traffic=tls(http_chain("a.example")),
        routes={"r": {"name": "r", "action": forward("c")}},
        rules=[rule("/", "r")],
    )
    with serving(setup, behind_tls(echo)) as (gateway, upstream):
        gateway.setup.clusters = {"c": cluster(upstream.address)}
        gateway.apply(gateway.setup)
        client = secure(gateway, "a.example", trusting(None, "http/1.1"))
        body = b"x" * 1_000_000
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + body)
        assert body in client.read_response().body

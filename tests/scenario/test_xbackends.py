"""XBackends: destinations outside of the cluster, found by name (GEP-4894)."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from tests.engine.harness import Peer, Upstream, always, echo, ok
from tests.scenario.stage import EDGE, named, route
from tests.scenario.tls import CLIENTS, behind, session
from tests.translate.certificates import config_map, secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.harness import Script
    from tests.scenario.stage import Stage


class Outside(Upstream):
    """A server on all addresses that the system has for ``localhost``."""

    def __init__(self, script: Script | None) -> None:
        super().__init__(script)
        self.port = int(self.address.rpartition(":")[2])
        addresses = {one[4][0] for one in socket.getaddrinfo("localhost", None)}
        self.others = []
        for address in addresses - {"127.0.0.1"}:
            family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
            with contextlib.suppress(OSError):  # one that the machine has no interface for
                self.others.append(socket.create_server((str(address), self.port), family=family))
        for other in self.others:
            self._also(other)

    def _also(self, listener: socket.socket) -> None:
        import threading

        def run() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                self.connections += 1
                peer = Peer(sock)
                self.peers.append(peer)
                assert self.script is not None
                args = (self.script, peer)
                threading.Thread(target=self._serve, args=args, daemon=True).start()

        threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        for other in self.others:
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
            other.close()
        super().close()


@contextlib.contextmanager
def outside(script: Script = echo) -> Iterator[Outside]:
    server = Outside(script)
    try:
        yield server
    finally:
        server.close()


def xbackend(port: int, more: str = "", hostname: str = "localhost") -> str:
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{name: api}}
spec:
  type: ExternalHostname
  externalHostname: {{hostname: {hostname}}}
  port: {{port: {port}}}
  {more}
"""


REF = "{group: gateway.networking.x-k8s.io, kind: XBackend, name: api}"

TO_API = route(f"- backendRefs: [{REF}]")


def test_requests_go_to_a_name(stage: Stage) -> None:
    """They are for that name: nobody there knows the Gateway's own."""
    with outside(named("api")) as server:
        scene = stage.serve(EDGE, xbackend(server.port), TO_API)
        answer = scene.get("/a?b=c")
        assert (answer.backend, answer.target) == ("api", "/a?b=c")
        assert answer.received("host") == [f"localhost:{server.port}"]
        assert answer.received("x-envoy-original-host") == ["example.org"]
        scene.reaches("dns_lookup_total", 1)
        scene.clock.advance(5)
        scene.reaches("dns_lookup_total", 2)
        assert scene.stat("dns_lookup_fail") == 0


def test_a_rule_may_say_which_host_is_asked_for(stage: Stage) -> None:
    with outside(named("api")) as server:
        rewrite = "{type: URLRewrite, urlRewrite: {hostname: other.example}}"
        rule = f"- filters: [{rewrite}]\n  backendRefs: [{REF}]"
        scene = stage.serve(EDGE, xbackend(server.port), route(rule))
        assert scene.get().received("host") == ["other.example"]


def test_a_share_of_the_requests_goes_outside(stage: Stage) -> None:
    stage.service("web")
    with outside(named("api")) as server:
        refs = f"[{{name: web, port: 80, weight: 0}}, {REF}]"
        scene = stage.serve(EDGE, xbackend(server.port), route(f"- backendRefs: {refs}"))
        assert scene.get().backend == "api"


def test_a_name_that_there_is_not(stage: Stage) -> None:
    scene = stage.serve(EDGE, xbackend(80, hostname="nobody.invalid"), TO_API)
    assert scene.get().status == 503
    scene.reaches("dns_lookup_fail", 1)


TLS = """tls:
    mode: ServerOnly
    validation:
      hostname: api.example
      caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]"""


def test_a_destination_is_spoken_to_over_tls(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        assert session(peer).version() is not None
        named("api")(peer)

    with outside(behind(script, "api.example")) as server:
        scene = stage.serve(EDGE, xbackend(server.port, TLS), TO_API, config_map("ca"))
        assert scene.get().backend == "api"
        scene.reaches("upstream_tls_handshake", 1)


def test_a_destination_that_is_not_the_one_gets_no_request(stage: Stage) -> None:
    with outside(behind(named("api"), "other.example")) as server:
        scene = stage.serve(EDGE, xbackend(server.port, TLS), TO_API, config_map("ca"))
        assert scene.get().status == 503
        scene.reaches("upstream_tls_fail", 1)


def test_a_client_certificate_is_shown(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        subject = session(peer).getpeercert()
        assert subject
        named("api")(peer)

    mutual = TLS.replace("ServerOnly", "ClientAndServer\n    clientCertificateRef: {name: own}")
    certificate = CLIENTS.issue_cert("gateway.example")
    chain = b"".join(one.bytes() for one in certificate.cert_chain_pems).decode()
    key = certificate.private_key_pem.bytes().decode()
    with outside(behind(script, "api.example", clients=CLIENTS)) as server:
        scene = stage.serve(
            EDGE,
            xbackend(server.port, mutual),
            TO_API,
            config_map("ca"),
            secret("own", chain=chain, key=key),
        )
        assert scene.get().backend == "api"


def test_what_is_to_be_encrypted_is_never_sent_in_plain_text(stage: Stage) -> None:
    with outside() as server:
        scene = stage.serve(EDGE, xbackend(server.port, TLS), TO_API, strict=False)
        assert scene.get().status == 500
        assert server.connections == 0


def test_http2_without_tls(stage: Stage) -> None:
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        received.append(peer.read_exactly(14))

    with outside(script) as server:
        scene = stage.serve(EDGE, xbackend(server.port, "protocol: H2C"), TO_API)
        assert scene.get().status == 503
        assert received[0] == b"PRI * HTTP/2.0"


def test_connections_go_to_a_name(stage: Stage) -> None:
    gateway = EDGE.replace("protocol: HTTP", "protocol: TCP")
    tcp = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: route}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{REF}]}}]
"""
    with outside(always(ok(b"bytes"))) as server:
        scene = stage.serve(gateway, xbackend(server.port, "protocol: TCP"), tcp)
        peer = scene.connect()
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert peer.read_response().body == b"bytes"


def test_a_service_outside_decides(stage: Stage) -> None:
    stage.service("web")
    with outside(always(ok(b"", "x-user: me"))) as server:
        auth = f"{{protocol: HTTP, backendRef: {REF}, http: {{}}}}"
        filters = f"[{{type: ExternalAuth, externalAuth: {auth}}}]"
        rule = f"- filters: {filters}\n  backendRefs: [{{name: web, port: 80}}]"
        scene = stage.serve(EDGE, xbackend(server.port), route(rule))
        assert scene.get().received("x-user") == ["me"]

"""What backends speak (``appProtocol``), and the kinds of Services that they are behind."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING

from tests.conformance.certificates import authorities, policy, server
from tests.conformance.infra import INFRA, Infra, echo, route
from tests.conformance.suite import conformance
from tests.engine.h2peer import PREFACE, H2Peer
from tests.engine.harness import WAIT, Upstream, get
from websockets.sync.client import connect
from websockets.sync.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.harness import Peer
    from websockets.sync.server import ServerConnection


def h2c(peer: Peer) -> None:
    """A pod that speaks HTTP/2 with prior knowledge, and nothing else."""
    while len(peer.buffer) < len(PREFACE):
        peer.buffer += peer.sock.recv(65536)
    if not peer.buffer.startswith(PREFACE):
        return
    pod = H2Peer(peer, client=False)
    while True:
        stream = pod.accept()
        request = pod.response(stream)
        seen = {"backend": "h2c-backend", "path": request[":path"]}
        pod.respond(stream, body=json.dumps(seen).encode())


@conformance("HTTPRouteBackendProtocolH2C")
def test_HTTPRouteBackendProtocolH2C(infra: Infra) -> None:
    infra.service("h2c-backend", script=h2c, app_protocol="kubernetes.io/h2c")
    infra.apply(route("- backendRefs: [{name: h2c-backend, port: 8080}]"))
    infra.accepted("same-namespace", "route")

    client = H2Peer(infra.connect("same-namespace"))
    for count in range(3):
        answer = client.ask(f"/{count}", host="example.com")
        assert answer.status == 200
        assert json.loads(answer.body)["path"] == f"/{count}"
    client.close()
    # What the client speaks is another matter.
    assert infra.request("same-namespace", "/h1").seen["backend"] == "h2c-backend"


@contextlib.contextmanager
def websocket_pod() -> Iterator[str]:
    """A pod that sends back what it is sent over WebSockets on ``/ws``."""

    def back(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path != "/ws":
            connection.close(1008)
        for message in connection:
            connection.send(message)

    with serve(back, "127.0.0.1", 0) as pod:
        thread = threading.Thread(target=pod.serve_forever, daemon=True)
        thread.start()
        yield "{}:{}".format(*pod.socket.getsockname())
        pod.shutdown()
        thread.join(WAIT)


@conformance("HTTPRouteBackendProtocolWebSocket")
def test_HTTPRouteBackendProtocolWebSocket(infra: Infra) -> None:
    with websocket_pod() as address:
        infra.endpoints("websockets", INFRA, [address], port=8080, app_protocol="kubernetes.io/ws")
        infra.apply(route("- backendRefs: [{name: websockets, port: 8080}]"))
        infra.accepted("same-namespace", "route")

        host, port = infra.address("same-namespace")
        with connect(f"ws://{host}:{port}/ws", open_timeout=WAIT, close_timeout=WAIT) as client:
            for message in ("hello", b"\x00\xff\x7f", "x" * 70_000, b"\x01" * 70_000):
                client.send(message)
                assert client.recv(WAIT) == message


def slices(name: str, *addresses: str, label: str) -> str:
    """EndpointSlices of IPv4 that somebody wrote by hand, an address in each."""
    return "\n---\n".join(
        f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{number}
  namespace: {INFRA}
  labels: {{kubernetes.io/service-name: {label}, app: {label}}}
addressType: IPv4
ports: [{{name: first-port, protocol: TCP, port: {address.rpartition(":")[2]}}}]
endpoints: [{{addresses: [{address.rpartition(":")[0]}], conditions: {{ready: true}}}}]
"""
        for number, address in enumerate(addresses)
    )


@conformance("HTTPRouteServiceTypes")
def test_HTTPRouteServiceTypes(infra: Infra) -> None:
    pod = Upstream(echo("pod", INFRA, lambda _: None))
    try:
        service = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {headless}
  ports: [{{name: first-port, protocol: TCP, port: 8080, targetPort: 3000}}]
"""
        kinds = {
            "manual-endpointslices": "clusterIP: 10.96.4.1",
            "headless": "clusterIP: None\n  selector: {app: headless}",
            "headless-manual-endpointslices": "clusterIP: None",
        }
        rules = ""
        for name, headless in kinds.items():
            manifest = service.format(name=name, namespace=INFRA, headless=headless)
            # There is a slice for IPv6 as well, and as nobody has written any address into it,
            # an API server has null there.
            empty = f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-ip6
  namespace: {INFRA}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv6
ports: [{{name: first-port, protocol: TCP, port: 3000}}]
endpoints: null
"""
            infra.write(name, manifest + "---" + slices(name, pod.address, label=name) + empty)
            rules += f"""
- matches: [{{path: {{type: Exact, value: /{name}}}}}]
  backendRefs: [{{name: {name}, port: 8080}}]
"""
        infra.apply(route(rules))

        infra.accepted("same-namespace", "route")
        for name in kinds:
            reply = infra.request("same-namespace", f"/{name}")
            assert (reply.backend, reply.seen["path"]) == ("pod", f"/{name}")
    finally:
        pod.close()


def test_a_port_of_wss_is_spoken_to_in_tls_as_a_policy_says(infra: Infra) -> None:
    """GEP-1911: WebSockets in TLS; what trusts it is a BackendTLSPolicy's to say."""

    def script(peer: Peer) -> None:
        request = peer.read_until(b"\r\n\r\n")
        assert b"upgrade: websocket" in request.lower()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n")
        peer.send(b"connection: upgrade\r\n\r\n")
        peer.send(peer.read_exactly(5)[::-1])

    infra.service(
        "wss",
        port=443,
        script=script,
        tls=server("abc.example.com"),
        app_protocol="kubernetes.io/wss",
    )
    infra.apply(
        authorities(), route("- backendRefs: [{name: wss, port: 443}]"), policy("wss", "wss")
    )
    client = infra.connect("same-namespace")
    fields = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    client.send(get("/", *fields, "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert client.read_head()[0].split()[1] == "101"
    client.send(b"hello")
    assert client.read_exactly(5) == b"olleh"
    client.close()

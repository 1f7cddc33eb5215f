"""Keys of tokens at a server that speaks TLS, which changes them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from tests.engine.harness import Peer, ok
from tests.envoy_parity.tokens import token
from tests.scenario.stage import EDGE, route
from tests.scenario.tls import behind
from tests.translate.certificates import config_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenario.stage import Stage

POLICIES = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: GatewayExtension
metadata: {name: issuers}
spec:
  jwt:
    providers:
    - name: main
      jwks:
        remote: {url: "https://issuer.example/keys", backendRef: {name: issuer, port: 80}}
---
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: users}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  jwtAuth: {extensionRef: {name: issuers}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: issuer}
spec:
  targetRefs: [{group: "", kind: Service, name: issuer}]
  validation:
    hostname: issuer.example
    caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]
"""


def _keys(**secrets: bytes) -> bytes:
    keys = [
        {"kty": "oct", "kid": kid, "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
        for kid, secret in secrets.items()
    ]
    return json.dumps({"keys": keys}).encode()


def _answering(current: list[bytes], seen: list[str]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        while True:
            line, headers, _ = peer.read_request()
            seen.append(f"{line} of {dict(headers)['host']}")
            peer.send(ok(current[-1]))

    return script


def _bearer(secret: bytes, kid: str) -> str:
    return f"authorization: Bearer {token(header={'alg': 'HS256', 'kid': kid}, secret=secret)}"


def test_keys_come_over_tls_and_change(stage: Stage) -> None:
    current, seen = [_keys(one=b"first")], list[str]()
    stage.service("web")
    stage.service("issuer", script=behind(_answering(current, seen), "issuer.example"))
    web = route("- backendRefs: [{name: web, port: 80}]")
    scene = stage.serve(EDGE, web, POLICIES, config_map("ca"))
    # The clock stands still, so the handshake may take its time.
    assert scene.get("/", _bearer(b"first", "one")).backend == "web"
    assert seen == ["GET /keys HTTP/1.1 of issuer.example"]
    assert scene.get("/").status == 401
    assert scene.get("/", _bearer(b"forged", "one")).status == 401
    current.append(_keys(two=b"second"))
    scene.clock.advance(10)
    assert scene.get("/", _bearer(b"second", "two")).backend == "web"
    assert len(seen) == 2
    # The key that is gone verifies no more, though it has before.
    gone = scene.get("/", _bearer(b"first", "one"))
    assert (gone.status, gone.body) == (
        401,
        b"Jwks doesn't have key to match kid or alg from Jwt",
    )

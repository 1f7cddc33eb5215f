"""Clients and backends that speak TLS, with certificates of one authority."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import trustme
from tests.translate.certificates import CA

if TYPE_CHECKING:
    import socket

    from tests.engine.harness import Peer, Script

CLIENTS = trustme.CA(organization_name="clients")
"""The authority of who connects."""


def trusting(*protocols: str) -> ssl.SSLContext:
    """A client's context that trusts the authority of manifests."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def handshake(peer: Peer, name: str, context: ssl.SSLContext | None = None) -> Peer:
    """The connection after a client's handshake on it."""
    # Should the handshake fail, the socket is closed with it.
    peer.sock = (context or trusting()).wrap_socket(peer.sock, server_hostname=name)
    return peer


def session(peer: Peer) -> ssl.SSLSocket:
    """The TLS side of a connection."""
    assert isinstance(peer.sock, ssl.SSLSocket)
    return peer.sock


def names(peer: Peer) -> list[str]:
    """The DNS names of the certificate that the server showed."""
    found: Any = session(peer).getpeercert()
    return [value for kind, value in found["subjectAltName"] if kind == "DNS"]


def behind(script: Script, *names: str, clients: trustme.CA | None = None) -> Script:
    """A backend that has a certificate for names, and asks for one if ``clients`` is given."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(*names).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    def secured(peer: Peer) -> None:
        plain: socket.socket = peer.sock
        peer.sock = context.wrap_socket(plain, server_side=True)
        script(peer)

    return secured

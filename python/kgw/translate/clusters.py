"""Clusters: the endpoints of a Service's port, and how connections to them are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.attach.upstream import Tls, Upstream


def settings(upstream: Upstream) -> dict[str, Any]:
    """The fields of a cluster that policies set; what they leave open is left out."""
    found: dict[str, Any] = {}
    if upstream.connect_timeout_ms is not None:
        found["connect_timeout_ms"] = upstream.connect_timeout_ms
    if upstream.max_requests_per_connection is not None:
        found["max_requests_per_connection"] = upstream.max_requests_per_connection
    if upstream.proxy_protocol is not None:
        header: dict[str, Any] = {"version": upstream.proxy_protocol}
        if upstream.tlvs.passed:
            header["pass_tlvs"] = list(upstream.tlvs.passed)
        if upstream.tlvs.added:
            header["tlvs"] = [[kind, list(value)] for kind, value in upstream.tlvs.added]
        found["proxy_protocol"] = header
    if upstream.tls is not None:
        found["tls"] = _tls(upstream.tls)
    return found


def negotiated(version: str, alpn: tuple[str, ...] | None) -> str:
    """The version of HTTP of a backend that application protocols are offered to.

    Args:
        version: what its port declares, ``http1`` if nothing.
        alpn: what a policy offers; ``None`` for what the version asks for.
    """
    if version != "http1" or alpn is None or "h2" not in alpn:
        return version
    return "auto" if "http/1.1" in alpn else "http2"


def _tls(tls: Tls) -> dict[str, Any]:
    found: dict[str, Any] = {
        "trust": {"type": "ca", "value": tls.ca} if tls.trust == "ca" else {"type": tls.trust}
    }
    if tls.sni is not None:
        found["sni"] = tls.sni
    if tls.subject_alt_names:
        found["subject_alt_names"] = [
            {"type": kind, "value": name} for kind, name in tls.subject_alt_names
        ]
    if tls.certificate is not None:
        found["certificate"] = {"chain": tls.certificate.chain, "key": tls.certificate.key}
    given = {
        "min_version": tls.parameters.min_version,
        "max_version": tls.parameters.max_version,
        "cipher_suites": list(tls.parameters.cipher_suites),
    }
    parameters = {name: value for name, value in given.items() if value}
    if parameters:
        found["parameters"] = parameters
    if tls.alpn is not None:
        found["alpn"] = list(tls.alpn)
    return found

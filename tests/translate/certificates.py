"""Certificates as Secrets and ConfigMaps, in manifests."""

from __future__ import annotations

import base64
import json
from functools import cache

import trustme

CA = trustme.CA()


@cache
def issued(*names: str) -> tuple[str, str]:
    """A certificate chain for names, and its key, as PEM."""
    leaf = CA.issue_cert(*names)
    chain = b"".join(one.bytes() for one in leaf.cert_chain_pems)
    return chain.decode(), leaf.private_key_pem.bytes().decode()


def authority() -> str:
    """The certificate of the authority, as PEM."""
    return CA.cert_pem.bytes().decode()


def secret(
    name: str, *names: str, namespace: str = "default", chain: str | None = None, key: str = ""
) -> str:
    """A Secret with a certificate for names, or with other content."""
    own_chain, own_key = issued(*(names or ("a.example",)))
    data = {
        "tls.crt": _encoded(own_chain if chain is None else chain),
        "tls.key": _encoded(key or own_key),
    }
    return _manifest("Secret", name, namespace, type="kubernetes.io/tls", data=data)


def config_map(name: str, *, namespace: str = "default", text: str | None = None) -> str:
    """A ConfigMap with the authority, or with other content."""
    data = {"ca.crt": authority() if text is None else text}
    return _manifest("ConfigMap", name, namespace, data=data)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _manifest(kind: str, name: str, namespace: str, **fields: object) -> str:
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields})

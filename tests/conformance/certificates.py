"""Certificates of the conformance tests: for servers, clients, and what goes wrong with them."""

from __future__ import annotations

import datetime
import json
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.conformance.infra import GROUP, INFRA
from tests.translate.certificates import CA, config_map, secret

if TYPE_CHECKING:
    from collections.abc import Iterable

STRANGER: Final = trustme.CA(organization_name="stranger")
"""An authority that has issued nothing that anybody uses."""

AUTHORITY: Final = "tls-checks-ca-certificate"
"""The ConfigMap of the authority that everybody trusts."""

SPIFFE: Final = "spiffe://abc.example.com/test-identity"
"""A URI that servers have in their certificates."""


def authorities() -> str:
    """The ConfigMaps of both authorities."""
    stranger = STRANGER.cert_pem.bytes().decode()
    return "\n---\n".join(
        (
            config_map(AUTHORITY, namespace=INFRA),
            config_map("mismatch-ca-certificate", namespace=INFRA, text=stranger),
        )
    )


def certificate(name: str, *hosts: str, namespace: str = INFRA) -> str:
    """A Secret with a certificate of the authority."""
    return secret(name, *hosts, namespace=namespace)


def client_certificate(name: str, issuer: trustme.CA, identity: str) -> str:
    """A Secret with the certificate of a client."""
    leaf = issuer.issue_cert(identity)
    chain = b"".join(one.bytes() for one in leaf.cert_chain_pems).decode()
    key = leaf.private_key_pem.bytes().decode()
    return secret(name, namespace=INFRA, chain=chain, key=key)


def authority_of(name: str, issuer: trustme.CA, namespace: str = INFRA) -> str:
    """A ConfigMap with the certificate of an authority."""
    return config_map(name, namespace=namespace, text=issuer.cert_pem.bytes().decode())


@cache
def identified(uri: str, *hosts: str) -> ssl.SSLContext:
    """How a pod ends TLS with a certificate that has a URI beside its names."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(CA.cert_pem.bytes())
    signer = serialization.load_pem_private_key(CA.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    names = [x509.DNSName(host) for host in hosts]
    one_day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - one_day)
        .not_valid_after(now + one_day)
        .add_extension(
            x509.SubjectAlternativeName([*names, x509.UniformResourceIdentifier(uri)]),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with trustme.Blob(pem + leaf.public_bytes(serialization.Encoding.PEM)).tempfile() as path:
        context.load_cert_chain(path)
    return context


@cache
def server(*hosts: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """How a pod ends TLS: with a certificate for names, asking for one if there are ``clients``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(*hosts).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client(shows: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """How a client speaks TLS, which trusts the authority."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if shows is not None:
        shows.configure_cert(context)
    return context


def policy(
    name: str,
    *targets: str,
    section: str | None = "main",
    host: str = "abc.example.com",
    ca: str = AUTHORITY,
    kind: str = "ConfigMap",
    group: str = "",
    names: Iterable[dict[str, str]] = (),
    generation: int = 1,
    **more: Any,
) -> str:
    """A BackendTLSPolicy's manifest."""
    validation: dict[str, Any] = {
        "caCertificateRefs": [{"group": group, "kind": kind, "name": ca}],
        "hostname": host,
    }
    if names:
        validation["subjectAltNames"] = list(names)
    where = {"sectionName": section} if section else {}
    refs = [{"group": "", "kind": "Service", "name": one, **where} for one in targets]
    return json.dumps(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": name, "namespace": INFRA, "generation": generation, **more},
            "spec": {"targetRefs": refs, "validation": validation},
        }
    )

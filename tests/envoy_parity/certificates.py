"""The certificates of the TLS cases: made anew by every run, the same for both proxies."""

from __future__ import annotations

import ssl
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import trustme

_MAKING = threading.Lock()
CLIENT = ("client.test", "ops@client.test", "10.0.0.9")


@cache
def authority() -> trustme.CA:
    """The certificate authority of servers and clients."""
    return trustme.CA(organization_name="parity")


def certificate(*names: str) -> dict[str, str]:
    """A certificate for these names, as kgw's IR has it: the same one for all threads."""
    with _MAKING:
        return _made(*names)


@cache
def _made(*names: str) -> dict[str, str]:
    leaf = authority().issue_cert(*names, organization_name="leaf")
    chain = b"".join(one.bytes() for one in leaf.cert_chain_pems).decode()
    return {"chain": chain, "key": leaf.private_key_pem.bytes().decode()}


def trusted() -> str:
    """PEM of the authority."""
    return authority().cert_pem.bytes().decode()


def context(options: dict[str, Any]) -> ssl.SSLContext:
    """A client's side: ``alpn`` names, ``max`` (a version), ``certificate`` (shows one if true)."""
    made = ssl.create_default_context(cadata=trusted())
    made.check_hostname = False  # what is asked for is a case's own choice
    if "alpn" in options:
        made.set_alpn_protocols(options["alpn"])
    if "max" in options:
        made.maximum_version = ssl.TLSVersion[options["max"]]
    if options.get("certificate"):
        shown = certificate(*CLIENT)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "client.pem"
            file.write_text(shown["key"] + shown["chain"])
            made.load_cert_chain(file)
    return made

"""What the engine thinks of certificates and parameters of TLS, before it is to use them."""

from collections.abc import Sequence

__all__ = ["certificate_names", "check_authorities", "check_certificate", "check_parameters"]

def certificate_names(pem: str) -> list[str]:
    """The DNS names, in lower case, that the first certificate in PEM is for; none without one."""

def check_certificate(chain: str, key: str) -> str | None:
    """What is wrong with a certificate and its key, or None; never says anything about the key.

    Args:
        chain: PEM, leaf first.
        key: PEM: PKCS #8, PKCS #1 or SEC 1. It must be the leaf's.
    """

def check_authorities(pem: str) -> str | None:
    """What is wrong with a bundle of certificate authorities in PEM, or None."""

def check_parameters(
    min_version: str | None, max_version: str | None, cipher_suites: Sequence[str]
) -> str | None:
    """What is wrong with versions and names of cipher suites, or None.

    Raises:
        ValueError: a version is neither ``"1.2"`` nor ``"1.3"``.
    """
